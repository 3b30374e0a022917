// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the points on a thread of its own, so that what was found until a signal is shown too.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use conformance::{Check, Point, Report, Target};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Why no point was tried.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// The program cannot be started.
    Start(String),
    /// The check itself failed.
    Own(String),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) reports: Vec<Report>,
    /// Why no front-end is served.
    pub(super) unserved: Option<String>,
    pub(super) obstacle: Option<Obstacle>,
    /// The signal that ended the check.
    pub(super) signal: Option<i32>,
}

enum Event {
    Obstacle(Obstacle),
    Unserved(String),
    Begins(&'static Point),
    Report(Report),
    Signal(i32),
    End,
}

/// Tries all points, or those until a signal, which also ends what the check started and removes its folders.
pub(super) fn run(
    target: Target,
    points: Vec<&'static Point>,
    limit: Duration,
    shows_progress: bool,
) -> io::Result<Found> {
    let (sender, events) = channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let of_signals = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = of_signals.send(Event::Signal(signal));
        }
    });
    let count = points.len();
    thread::spawn(move || {
        try_all(target, points, limit, &sender);
        let _ = sender.send(Event::End);
    });
    let mut progress = Progress {
        is_shown: shows_progress && io::stderr().is_terminal(),
        count,
    };
    Ok(collect(&events, &mut progress))
}

/// Ends early where nobody listens any more.
fn try_all(target: Target, points: Vec<&'static Point>, limit: Duration, sender: &Sender<Event>) {
    let check = Check::new(target, limit);
    let own = check.own_error().map(|why| Obstacle::Own(why.to_owned()));
    let start = check.start_error();
    let obstacle = start.map(|why| Obstacle::Start(why.to_owned())).or(own);
    if let Some(obstacle) = obstacle {
        let _ = sender.send(Event::Obstacle(obstacle));
        return;
    }
    if let Some(why) = check.unserved() {
        let _ = sender.send(Event::Unserved(why.to_owned()));
    }
    for point in points {
        if sender.send(Event::Begins(point)).is_err() {
            return;
        }
        let _ = sender.send(Event::Report(check.run(point)));
    }
}

fn collect(events: &Receiver<Event>, progress: &mut Progress) -> Found {
    let mut found = Found::default();
    while let Ok(event) = events.recv() {
        match event {
            Event::Obstacle(obstacle) => found.obstacle = Some(obstacle),
            Event::Unserved(why) => found.unserved = Some(why),
            Event::Begins(point) => progress.show(found.reports.len() + 1, point),
            Event::Report(report) => found.reports.push(report),
            Event::Signal(signal) => {
                conformance::clean_up();
                found.signal = Some(signal);
                break;
            }
            Event::End => break,
        }
    }
    progress.clear();
    found
}

/// A line on a terminal that is written anew.
struct Progress {
    is_shown: bool,
    count: usize,
}

impl Progress {
    fn show(&self, number: usize, point: &Point) {
        if self.is_shown {
            let _ = write!(
                io::stderr(),
                "\r\x1b[KPoint {number} of {}: {}",
                self.count,
                point.name
            );
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
