// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads of a vhost-user-input program, with an input device played by a pipe.

use std::time::{Duration, Instant};

use anyhow::ensure;
use frontend::input::{Input, InputOptions};
use frontend::{DEFAULT_LIMIT, Memory};
use harness::mock::codes::{EV_ABS, EV_REL};
use harness::mock::{MOUSE, TOUCHSCREEN};
use tempfile::TempDir;

use crate::interrupt;
use crate::pipe::PipeDevice;
use crate::program::{MeasuredProgram, Process, Style};
use crate::workload::{Batch, Sample, Workload};

/// Time between two reports of a mouse with 8000 of them in a second.
const PERIOD: Duration = Duration::from_micros(125);
/// After how long without an event a device is at rest.
const QUIET: Duration = Duration::from_millis(100);
/// Entries of the event queue, as in QEMU 7.2.
const QUEUE_SIZE: u16 = 64;
const ABS_MT_SLOT: u16 = 47;
const ABS_MT_POSITION: [u16; 2] = [53, 54];

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Moves a mouse: reports of 3 events, each sent once the one before has arrived.
    Mouse,
    /// The same, 8000 times a second, whether the guest has them or not.
    MouseAtRate,
    /// Moves ten fingers: reports of 31 events.
    Touch,
    /// Nothing: the program is idle.
    Idle,
}

/// Sets a program up for a scenario.
///
/// # Errors
/// If it cannot do that.
pub(crate) fn start(
    who: &MeasuredProgram,
    scenario: Scenario,
) -> anyhow::Result<Option<Box<dyn Workload>>> {
    if who.style == Style::Baseline {
        return Ok(None);
    }
    let description = match scenario {
        Scenario::Touch => TOUCHSCREEN,
        _ => MOUSE,
    };
    let device = PipeDevice::start(description)?;
    let started = who.start(&arguments(who, &device), &device.environment())?;
    let memory = Memory::with_size(1 << 20)?;
    let options = InputOptions {
        queue_size: QUEUE_SIZE,
        // As Linux does: it gives all back that it took, with one kick.
        refill: false,
        ..InputOptions::default()
    };
    let mut input = Input::start(started.session, &memory, options)?;
    input.give(QUEUE_SIZE)?;
    // A program may tell a new guest first in which state the device is.
    loop {
        match input.next_event(QUIET) {
            Ok(_) => input.give(1)?,
            Err(e) if e.is_timeout() => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(Box::new(Desk {
        program: started.program,
        input,
        device,
        scenario,
        round: 0,
        _folder: started.folder,
    })))
}

/// What a program is told about its device.
pub(crate) fn arguments(who: &MeasuredProgram, device: &PipeDevice) -> Vec<String> {
    let path = device.path();
    vec![match who.style {
        Style::VhostDevice => format!("--event-list={path}"),
        _ => format!("--evdev-path={path}"),
    }]
}

struct Desk {
    program: Process,
    input: Input,
    device: PipeDevice,
    scenario: Scenario,
    round: i32,
    _folder: Option<TempDir>,
}

impl Desk {
    fn piece(&mut self) -> anyhow::Result<Sample> {
        self.round = self.round.wrapping_add(1);
        let events = events(self.scenario, self.round);
        let start = Instant::now();
        self.device.report(&events)?;
        let (count, _) = receive(&mut self.input, DEFAULT_LIMIT)?;
        ensure!(
            count == events.len() + 1,
            "a report of {count} events instead of {}",
            events.len() + 1
        );
        Ok(Sample {
            latency: start.elapsed(),
            bytes: 0,
        })
    }

    /// Reports come at their time; a batch has as many as fit into its time. What the program
    /// drops because it cannot keep up is no piece of work done.
    fn at_rate(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        let count = (batch.time.as_nanos() / PERIOD.as_nanos()) as usize;
        let count = count.max(batch.pieces);
        let (input, device) = (&mut self.input, &mut self.device);
        let begin = Instant::now();
        let due = |n: usize| begin + PERIOD * n as u32;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                for n in 0..count {
                    std::thread::sleep(due(n).saturating_duration_since(Instant::now()));
                    // Told by how far it moves, so that it is known again.
                    device.report(&[(EV_REL, 0, n as i32 + 1), (EV_REL, 1, 1)])?;
                }
                anyhow::Ok(())
            });
            let mut samples = Vec::with_capacity(count);
            let mut last = 0;
            while last < count {
                interrupt::check()?;
                match receive(input, QUIET) {
                    Ok((_, moved)) => last = usize::try_from(moved)?,
                    Err(e) if e.is_timeout() && sender.is_finished() => break,
                    Err(e) if e.is_timeout() => continue,
                    Err(e) => return Err(e.into()),
                }
                let latency = due(last.saturating_sub(1)).elapsed();
                samples.push(Sample { latency, bytes: 0 });
            }
            match sender.join() {
                Ok(sent) => sent?,
                Err(_) => anyhow::bail!("the sender panicked"),
            }
            ensure!(!samples.is_empty(), "none of {count} reports arrived");
            Ok(samples)
        })
    }
}

impl Workload for Desk {
    fn pids(&self) -> Vec<u32> {
        self.program.pid().into_iter().collect()
    }

    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        match self.scenario {
            Scenario::Idle => Ok(Vec::new()),
            Scenario::MouseAtRate => self.at_rate(batch),
            Scenario::Mouse | Scenario::Touch => batch.run(|| self.piece()),
        }
    }
}

/// Takes a report and gives its buffers back. Tells how many events it had, and the value of the
/// first of them.
fn receive(input: &mut Input, limit: Duration) -> frontend::Result<(usize, i32)> {
    let mut first = None;
    let mut count = 0;
    loop {
        let event = input.next_event(limit)?;
        count += 1;
        let value = *first.get_or_insert(event.value);
        if event.is_report() {
            input.give(count)?;
            return Ok((count.into(), value));
        }
    }
}

/// A report without its end. No two in a row are alike.
fn events(scenario: Scenario, round: i32) -> Vec<(u16, u16, i32)> {
    match scenario {
        Scenario::Touch => (0..10)
            .flat_map(|slot| {
                let [x, y] = ABS_MT_POSITION;
                let at = 100 * slot + round % 90;
                [
                    (EV_ABS, ABS_MT_SLOT, slot),
                    (EV_ABS, x, at),
                    (EV_ABS, y, at + 1),
                ]
            })
            .collect(),
        _ => vec![
            (EV_REL, 0, 1 + round.rem_euclid(5)),
            (EV_REL, 1, 1 + round.rem_euclid(7)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_the_size_they_are_named_after() {
        assert_eq!(events(Scenario::Mouse, 1).len() + 1, 3);
        assert_eq!(events(Scenario::Touch, 1).len() + 1, 31);
        assert_ne!(events(Scenario::Touch, 1), events(Scenario::Touch, 2));
    }
}
