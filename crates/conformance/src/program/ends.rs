// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end of a program: SIGTERM in each state, and front-ends that leave.

use std::time::{Duration, Instant};

use frontend::{Deadline, FrontendReq};
use rustix::process::Signal;

use super::CONVENTIONS;
use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::process::{Backend, End};
use crate::trial::{Served, Trial};

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "conventions/sigterm-waiting",
        CONVENTIONS,
        "SIGTERM ends the program while it waits for a front-end.",
        waiting,
    ),
    Point::required(
        "conventions/sigterm-connected",
        CONVENTIONS,
        "SIGTERM ends the program while a front-end is connected.",
        connected,
    ),
    Point::required(
        "conventions/sigterm-mid-message",
        CONVENTIONS,
        "SIGTERM ends the program while a front-end has sent half of a message.",
        mid_message,
    ),
    Point::required(
        "conventions/sigterm-flood",
        CONVENTIONS,
        "SIGTERM ends the program while a front-end sends messages without a pause.",
        flood,
    ),
    Point::required(
        "conventions/sigterm-running",
        CONVENTIONS,
        "SIGTERM ends the program while its virtqueues run.",
        running,
    ),
    Point::required(
        "conventions/sigterm-left",
        CONVENTIONS,
        "SIGTERM ends a program that waits for the next front-end, after one has left.",
        left,
    ),
    Point::recommended(
        "conventions/sigterm-status",
        CONVENTIONS,
        "After SIGTERM the program has ended cleanly: by itself, with status 0.",
        status,
    ),
    Point::recommended(
        "conventions/disconnect",
        CONVENTIONS,
        "When the front-end disconnects, the program ends with status 0 or serves the next front-end.",
        disconnect,
    ),
    Point::required(
        "conventions/front-end-dies",
        CONVENTIONS,
        "A front-end that dies in the middle of a message or with running virtqueues does not crash the program or leave \
         it deaf.",
        front_end_dies,
    ),
];

/// How long a program may take to end by SIGTERM: management software sends SIGKILL after a few seconds.
const END: Duration = Duration::from_secs(5);
/// How long what it started may live on.
const END_OF_CHILDREN: Duration = Duration::from_millis(500);

/// How SIGTERM ended a program.
pub(super) struct Terminated {
    end: End,
    took: Duration,
}

impl Terminated {
    fn told(&self) -> Seen {
        Ok(format!("{}, after {:.2?}", self.end, self.took))
    }
}

/// That SIGTERM ends it in time, not by a crash, with all that it started.
pub(super) fn terminates(trial: &Trial, backend: &mut Backend) -> Result<Terminated, Flaw> {
    if let Some(end) = backend.end()? {
        return fails(format!("it had ended before, with {end}"));
    }
    let begin = Instant::now();
    backend.signal(Signal::TERM)?;
    let limit = END.min(trial.left());
    let end = match backend.wait_end(&Deadline::after(limit))? {
        None => return fails(format!("it runs on {limit:.1?} after SIGTERM")),
        // The signal's own default is an end, though not a clean one.
        Some(end @ (End::Status(_) | End::Signal(15))) => end,
        Some(end) => return fails(format!("it is ended by {end}")),
    };
    let ended = backend.ended().unwrap_or_else(Instant::now);
    let took = ended.saturating_duration_since(begin);
    let soon = Deadline::after(END_OF_CHILDREN);
    let alone = soon.until("the end of its children", || {
        Ok(backend.others().is_empty().then_some(()))
    });
    match alone {
        Ok(()) => Ok(Terminated { end, took }),
        Err(_) => {
            let others: Vec<_> = backend
                .others()
                .into_iter()
                .map(|pid| pid.as_raw_nonzero().to_string())
                .collect();
            fails(format!(
                "it ends with {end}, and what it started lives on: process {}",
                others.join(", ")
            ))
        }
    }
}

fn waiting(trial: &Trial) -> Seen {
    let form = trial.form()?;
    let mut started = trial.start(form)?;
    if !started.can_connect_again() {
        // With a connected socket there is no such state; it is up once it answers.
        return not_tried("it is served by a connected socket only");
    }
    // It listens: only then its start is over.
    let path = trial.socket_path();
    let listens = || -> frontend::Result<Option<()>> {
        let found = crate::trial::sockets_beside(&path);
        Ok((!found.is_empty() || started.backend.end()?.is_some()).then_some(()))
    };
    trial.deadline.until("the socket", listens)?;
    // A moment for what it does after bind(2): there is nothing to wait for.
    std::thread::sleep(Duration::from_millis(50));
    terminates(trial, &mut started.backend)?.told()
}

fn connected(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    served.session.get_u64(FrontendReq::GET_FEATURES)?;
    terminates(trial, &mut served.started.backend)?.told()
}

fn mid_message(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    served.session.get_u64(FrontendReq::GET_FEATURES)?;
    served.session.channel.send_bytes(&half_a_message(), &[])?;
    let backend = &mut served.started.backend;
    if let Some(end) = backend.wait_end(&Deadline::after(Duration::from_millis(50)))? {
        return not_tried(format!("half of a message ends it with {end}"));
    }
    terminates(trial, backend)?.told()
}

/// The header of SET_FEATURES and half of its number.
fn half_a_message() -> Vec<u8> {
    let header = [2_u32, 1, 8].map(u32::to_ne_bytes).concat();
    [header, vec![0; 4]].concat()
}

fn flood(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let features = served.session.get_u64(FrontendReq::GET_FEATURES)?;
    // SET_FEATURES: nothing to answer.
    let message = [
        [2_u32, 1, 8].map(u32::to_ne_bytes).concat(),
        features.to_ne_bytes().to_vec(),
    ];
    let flood = message.concat().repeat(200);
    let Served { session, started } = &mut served;
    // More than the socket holds: when these are sent, most were read.
    for _ in 0..100 {
        session.channel.send_bytes(&flood, &[])?;
    }
    session.channel.limit = Duration::from_millis(200);
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(|| {
            let stopped = stopped;
            let goes_on = || stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty);
            while goes_on() {
                match session.channel.send_bytes(&flood, &[]) {
                    Err(error) if !error.is_timeout() => break,
                    _ => {}
                }
            }
        });
        let end = terminates(trial, &mut started.backend);
        drop(stop);
        end?.told()
    })
}

fn running(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    terminates(trial, &mut guest.started.backend)?.told()
}

fn left(trial: &Trial) -> Seen {
    let Served {
        mut session,
        mut started,
    } = trial.serve()?;
    session.get_u64(FrontendReq::GET_FEATURES)?;
    drop(session);
    let moment = Deadline::after(trial.left().min(Duration::from_millis(300)));
    if let Some(end) = started.backend.wait_end(&moment)? {
        return Ok(format!("it had ended with its front-end, with {end}"));
    }
    terminates(trial, &mut started.backend)?.told()
}

fn status(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    served.session.get_u64(FrontendReq::GET_FEATURES)?;
    match terminates(trial, &mut served.started.backend)?.end {
        End::Status(0) => Ok("status 0".into()),
        end => fails(format!("{end}")),
    }
}

fn disconnect(trial: &Trial) -> Seen {
    let Served {
        mut session,
        mut started,
    } = trial.serve()?;
    session.get_u64(FrontendReq::GET_FEATURES)?;
    drop(session);
    started.left(trial, true)
}

fn front_end_dies(trial: &Trial) -> Seen {
    let Served {
        mut session,
        mut started,
    } = trial.serve()?;
    session.get_u64(FrontendReq::GET_FEATURES)?;
    session.channel.send_bytes(&half_a_message(), &[])?;
    drop(session);
    let seen = started.left(trial, false)?;
    drop(started);
    if !Guest::knows(trial) {
        return Ok(format!("mid-message: {seen}"));
    }
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let mut started = guest.leave();
    let then = started.left(trial, false)?;
    Ok(format!("mid-message: {seen}; virtqueues running: {then}"))
}
