// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-input: events of the device, which the check sends to the program.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use conventions::DeviceType;
use frontend::Memory;
use frontend::VhostUserProtocolFeatures as Protocol;
use frontend::input::{Event, Input, InputOptions};

use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::target::EVENTS;
use crate::trial::{Served, Started, Trial};

const INPUT: &[DeviceType] = &[DeviceType::Input];
const SECTION: &str = "virtio 1.2, 5.8.6";
const EV_KEY: u16 = 1;
const EV_REL: u16 = 2;
const EV_ABS: u16 = 3;
/// The most events in a report, its end not counted: more than the virtqueue of QEMU 10 has entries.
const REPORT: usize = 6;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "device/input-events",
        SECTION,
        "What happens to the device comes to the driver: each event in a buffer of its own, in order, and each report with its \
         end, SYN_REPORT.",
        events,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-events-few-buffers",
        SECTION,
        "A report of more events than the driver has buffers is complete once the driver has given more: a virtqueue of QEMU \
         10 has 4 entries.",
        few_buffers,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-events-restart",
        SECTION,
        "A driver that begins anew, after its virtqueues were stopped, gets what happens from then on.",
        restart,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
];

/// A guest with the device, and what causes its events.
struct Desk {
    /// First, so that the front-end leaves before the program is killed.
    input: Input,
    source: UnixStream,
    _started: Started,
    limit: Duration,
}

impl Desk {
    fn start(trial: &Trial, queue_size: u16) -> Result<Self, Flaw> {
        trial.form()?;
        if !trial.target.names(EVENTS) {
            return not_tried(format!("none of its arguments is {EVENTS}"));
        }
        let Served { session, started } = trial.serve()?;
        let memory = Memory::with_size(1 << 20)?;
        let options = InputOptions {
            queue_size,
            ..InputOptions::default()
        };
        let mut input = Input::start(session, &memory, options)?;
        input.session.settle()?;
        let path = trial.events_path();
        let what = format!("the program to listen for events at {}", path.display());
        let connect = || Ok(UnixStream::connect(&path).ok());
        Ok(Self {
            input,
            source: trial.deadline.until(what, connect)?,
            _started: started,
            limit: trial.left(),
        })
    }

    /// The device's first keys and axes.
    fn codes(&mut self) -> Result<Vec<(u16, u16, i32)>, Flaw> {
        let mut codes = Vec::new();
        for kind in [EV_KEY, EV_ABS, EV_REL] {
            for code in self.input.codes(kind)? {
                let axis = match u8::try_from(code) {
                    Ok(axis) if kind == EV_ABS => self.input.abs_info(axis)?,
                    _ => None,
                };
                // An axis at its minimum would be where it begins.
                codes.push((kind, code, axis.map_or(1, |axis| axis.max as i32)));
            }
        }
        codes.truncate(REPORT);
        match codes.is_empty() {
            true => not_tried("the device has neither keys nor axes"),
            false => Ok(codes),
        }
    }

    /// Has these events happen, and the end of a report, and looks at what the driver gets.
    fn report(&mut self, codes: &[(u16, u16, i32)]) -> Result<(), Flaw> {
        let events = codes
            .iter()
            .map(|(kind, code, value)| Event::new(*kind, *code, *value));
        let sent: Vec<_> = events.chain([Event::report()]).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|event| event.to_bytes()).collect();
        self.source.write_all(&bytes)?;
        for (number, expected) in (1..).zip(&sent) {
            let got = match self.input.next_event(self.limit) {
                Ok(got) => got,
                Err(error) => {
                    return fails(format!("event {number} of {}: {error}", sent.len()));
                }
            };
            if got != *expected {
                return fails(format!(
                    "event {number} of {} is {got:?} instead of {expected:?}",
                    sent.len()
                ));
            }
        }
        Ok(())
    }

    /// As [`Desk::report`], and the keys up again.
    fn press(&mut self, codes: &[(u16, u16, i32)]) -> Result<(), Flaw> {
        self.report(codes)?;
        let keys = codes.iter().filter(|(kind, ..)| *kind == EV_KEY);
        let up: Vec<_> = keys.map(|(kind, code, _)| (*kind, *code, 0)).collect();
        match up.is_empty() {
            true => Ok(()),
            false => self.report(&up),
        }
    }
}

fn events(trial: &Trial) -> Seen {
    let mut desk = Desk::start(trial, 64)?;
    let codes = desk.codes()?;
    for code in &codes {
        desk.press(&[*code])?;
    }
    Ok(format!("of {} keys and axes", codes.len()))
}

fn few_buffers(trial: &Trial) -> Seen {
    let mut desk = Desk::start(trial, 4)?;
    let codes = desk.codes()?;
    if codes.len() < 4 {
        return not_tried(format!("the device has {} keys and axes", codes.len()));
    }
    desk.press(&codes)?;
    Ok(format!(
        "{} events by a virtqueue of 4 entries",
        codes.len() + 1
    ))
}

fn restart(trial: &Trial) -> Seen {
    let mut desk = Desk::start(trial, 64)?;
    let codes = desk.codes()?;
    let first = &codes[..1];
    desk.press(first)?;
    desk.input.stop()?;
    desk.input.restart()?;
    desk.input.session.settle()?;
    // An axis of the same value would be no event.
    let next = codes.get(1..2).unwrap_or(first);
    desk.press(next)?;
    Ok("the next driver gets events".into())
}
