// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a program may offer to a service manager: socket activation, readiness, the watchdog.

use std::time::Duration;

use frontend::{Deadline, FrontendReq, NotifySocket};

use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::process::Activation;
use crate::trial::{Form, Started, Trial};

pub(super) const POINTS: &[Point] = &[
    Point::extra(
        "conventions/listen-fds",
        "sd_listen_fds(3)",
        "A listening socket that a service manager passes (LISTEN_FDS) is served, and one that is another process's \
         (LISTEN_PID) is not.",
        listen_fds,
    ),
    Point::extra(
        "conventions/readiness",
        "sd_notify(3), READY=1",
        "READY=1 is sent once a front-end can connect, and not before.",
        readiness,
    ),
    Point::extra(
        "conventions/watchdog",
        "sd_watchdog_enabled(3)",
        "WATCHDOG=1 is sent again and again, within the time that WATCHDOG_USEC says.",
        watchdog,
    ),
];

/// The watchdog's time that a point sets, in microseconds.
const WATCHDOG_USEC: u64 = 2_000_000;

fn listen_fds(trial: &Trial) -> Seen {
    trial.form()?;
    let mut started = trial.start(Form::Activation(Activation::Own))?;
    let moment = Deadline::after(trial.left() / 4);
    if let Some(end) = started
        .backend
        .wait_end(&Deadline::after(Duration::from_millis(300)))?
    {
        return not_tried(format!("not offered: it ends with {end}"));
    }
    let mut session = started.session(trial)?;
    session.channel.limit = moment.left();
    if let Err(error) = session.get_u64(FrontendReq::GET_FEATURES) {
        return not_tried(format!("not offered: {error}"));
    }
    drop((session, started));
    let mut started = trial.start(Form::Activation(Activation::OfAnother))?;
    let moment = Deadline::after(trial.left() / 2);
    if started.backend.wait_end(&moment)?.is_some() {
        return Ok("served; with another LISTEN_PID it fails at its start".into());
    }
    let mut session = started.session(trial)?;
    session.channel.limit = Duration::from_secs(1).min(trial.left());
    match session.get_u64(FrontendReq::GET_FEATURES) {
        Ok(_) => fails("it takes a socket that LISTEN_PID gives to another process"),
        Err(_) => Ok("served; not with another LISTEN_PID".into()),
    }
}

/// A program that was started with NOTIFY_SOCKET, once it has sent its readiness.
fn ready(trial: &Trial, env: &[(&'static str, String)]) -> Result<(Started, NotifySocket), Flaw> {
    let mut socket = NotifySocket::new()?;
    let form = trial.form()?;
    let mut started = trial.start_with(form, |launch| {
        let launch = launch.env("NOTIFY_SOCKET", socket.path());
        env.iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value))
    })?;
    // What listens and says nothing then has nothing to say: it is given a while.
    let end = Deadline::after(trial.left() / 3);
    loop {
        if socket.count("READY", "1")? > 0 {
            return Ok((started, socket));
        }
        if started
            .backend
            .wait_end(&Deadline::after(Duration::from_millis(5)))?
            .is_some()
        {
            return not_tried("it ends at its start");
        }
        if end.passed() {
            return not_tried("not offered: it sends no READY=1");
        }
    }
}

fn readiness(trial: &Trial) -> Seen {
    let (mut started, mut socket) = ready(trial, &[])?;
    if started.can_connect_again() {
        // No waiting: it must be there.
        let path = trial.socket_path();
        let connected = crate::trial::connect_now(&path);
        if let Err(error) = connected {
            return fails(format!("READY=1 is sent, and {}: {error}", path.display()));
        }
    } else {
        started.session(trial)?.get_u64(FrontendReq::GET_FEATURES)?;
    }
    match socket.count("READY", "1")? {
        1 => Ok("READY=1 once it listens".into()),
        count => fails(format!("READY=1 is sent {count} times")),
    }
}

fn watchdog(trial: &Trial) -> Seen {
    let usec = ("WATCHDOG_USEC", WATCHDOG_USEC.to_string());
    let (_started, mut socket) = ready(trial, &[usec])?;
    let limit = Duration::from_micros(WATCHDOG_USEC);
    // The first comes within the limit, or there is no watchdog.
    let first = Deadline::after(limit);
    let seen = first.until("WATCHDOG=1", || {
        Ok((socket.count("WATCHDOG", "1")? > 0).then_some(()))
    });
    if seen.is_err() {
        return not_tried("not offered: it sends no WATCHDOG=1");
    }
    for wanted in 2..4 {
        let next = Deadline::after(limit);
        let fed = next.until("WATCHDOG=1", || {
            Ok((socket.count("WATCHDOG", "1")? >= wanted).then_some(()))
        });
        if fed.is_err() {
            return fails(format!(
                "no WATCHDOG=1 for {limit:?} after {} of them",
                wanted - 1
            ));
        }
    }
    Ok(format!("three times, never {limit:?} apart"))
}
