// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records all that an input device reports.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, bail};
use evdev::raw_stream::RawDevice;
use evdev::{AutoRepeat, EventType, InputEvent, SynchronizationCode};
use guest::input::kind_name;

/// Events between two lines about the progress.
const STEP: usize = 8;

/// Collects the events of `device` until the report in which the key `last` is released, and tells them then, each as `TYPE
/// CODE VALUE`. Before, it tells how many it has, as `recorded N`, about each eighth time.
///
/// The kernel keeps at most 64 events for a reader, and drops all that it has where one more comes. So who makes the
/// device report waits for the progress. Nothing else fills that room: the kernel stops repeating keys, and the slow port
/// holds up only this thread, not the one that reads.
///
/// # Errors
/// If the kernel dropped events, or the device cannot be read.
pub(crate) fn record_until_key(
    last: u16,
    mut device: RawDevice,
    output: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    if device.get_auto_repeat().is_some() {
        let never = AutoRepeat {
            delay: 0,
            period: 0,
        };
        device
            .update_auto_repeat(&never)
            .context("cannot turn autorepeat off")?;
    }
    output("listening");
    let (progress, counts) = channel();
    let reader = thread::spawn(move || read_until_key(last, &mut device, &progress));
    let mut told = 0;
    for count in counts {
        if count >= told + STEP {
            told = count;
            output(&format!("recorded {count}"));
        }
    }
    let events = reader.join();
    let events = events.map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    for event in events {
        let (kind, code, value) = (event.event_type(), event.code(), event.value());
        output(&format!("{} {code} {value}", kind_name(kind)));
    }
    Ok(())
}

/// Reads all events, and says how many there are.
fn read_until_key(
    last: u16,
    device: &mut RawDevice,
    progress: &Sender<usize>,
) -> anyhow::Result<Vec<InputEvent>> {
    let mut events = Vec::new();
    let mut ends = false;
    loop {
        for event in device.fetch_events()? {
            let (kind, code, value) = (event.event_type(), event.code(), event.value());
            match kind {
                // What was just set, not what the device reports.
                EventType::REPEAT => continue,
                EventType::SYNCHRONIZATION if code == SynchronizationCode::SYN_DROPPED.0 => bail!(
                    "the guest's kernel dropped events after the first {} (SYN_DROPPED): they were not read in time, or there \
                     were more than the device was made to report",
                    events.len()
                ),
                _ => events.push(event),
            }
            ends |= (kind, code, value) == (EventType::KEY, last, 0);
            if ends && kind == EventType::SYNCHRONIZATION {
                return Ok(events);
            }
        }
        // Whoever listened has ended with an error of its own.
        let _ = progress.send(events.len());
    }
}
