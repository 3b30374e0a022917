// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtual keyboard, on which somebody types all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::events::EventsClient;
use frontend::input::Event;
use harness::console::Running;
use harness::qemu::Vm;

use super::{End, Host, Moments, Qemu, ROUNDS, SOON, assert_silent, said};

const SERVICE: &str = "vhost-user-input@vm1:keyboard.service";
const SOCKETS: [&str; 2] = [
    "vhost-user-input@vm1:keyboard.socket",
    "vhost-user-events@vm1:keyboard.socket",
];
const NAME: &str = "vhost-user keyboard";
/// 50 keys a second: one is down for half of that.
const HALF: Duration = Duration::from_millis(10);
/// A press and a release, each with its SYN_REPORT.
const EVENTS_A_KEY: usize = 4;
/// Most events that are typed before the guest's program has read the first of them: its kernel keeps 64 for it, and
/// drops them all if there are more (SYN_DROPPED). So a guest or host that is slow does not look like a fault of the
/// device. The guest tells about each eighth event.
const AHEAD: usize = 56;
/// Ends the recording.
const ESC: u16 = 1;
/// All but [`ESC`].
const KEYS: [u16; 26] = [
    30, 48, 46, 32, 18, 33, 34, 35, 23, 36, 37, 38, 50, 49, 24, 25, 16, 19, 31, 20, 22, 47, 17, 45,
    21, 44,
];
const EV_KEY: u16 = 1;

#[test]
fn killed_keyboard_reports_each_key_once_and_in_order() -> anyhow::Result<()> {
    ends(Qemu::Usual, End::Kill, ROUNDS)
}

#[test]
fn killed_keyboard_reports_each_key_once_and_in_order_on_the_newest_qemu() -> anyhow::Result<()> {
    ends(Qemu::Newest, End::Kill, ROUNDS)
}

#[test]
fn restarted_keyboard_reports_each_key_once_and_in_order() -> anyhow::Result<()> {
    ends(Qemu::Usual, End::Restart, ROUNDS)
}

#[test]
fn restarted_keyboard_reports_each_key_once_and_in_order_on_the_newest_qemu() -> anyhow::Result<()>
{
    ends(Qemu::Newest, End::Restart, ROUNDS)
}

/// The program ends at random moments while somebody types. What the guest's evdev device reported is compared in the
/// end, event by event.
fn ends(qemu: Qemu, how: End, rounds: u32) -> anyhow::Result<()> {
    let artifacts = qemu.artifacts()?;
    let mut host = Host::boot()?;
    host.sandbox.drop_in(
        SERVICE,
        "[Service]\nEnvironment=OPTIONS=--virtual=keyboard\nUser=vu-vm1-kbd\n",
    )?;
    for socket in SOCKETS {
        host.sandbox.systemctl(&["start", socket])?;
    }
    let socket = host.sandbox.path("/run/vhost-user/input/vm1:keyboard.sock");
    let mut vm = Vm::builder(&artifacts)
        .input_socket(&socket)
        .boot()
        .with_context(|| host.said(SERVICE))?;
    let events = host
        .sandbox
        .path("/run/vhost-user-console/vm1:keyboard/events.sock");
    let before = said(&vm);
    let recording = vm.start(&format!("record-until-key {ESC} {NAME}"))?;
    recording.expect("listening", SOON)?;
    let mut typist = Typist {
        client: EventsClient::connect(&events)?,
        recording,
        recorded: 0,
        typed: Vec::new(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let typing = thread::spawn(move || -> anyhow::Result<(Typist, Duration)> {
        let began = Instant::now();
        typist.type_until(&stopped)?;
        Ok((typist, began.elapsed()))
    });

    let mut moments = Moments::new()?;
    let ended = (0..rounds).try_for_each(|round| {
        moments.sleep(100);
        // Its error tells why.
        if typing.is_finished() {
            return Ok(());
        }
        let ended = host.end(SERVICE, how);
        ended.with_context(|| format!("round {round}"))
    });
    stop.store(true, Ordering::Relaxed);
    let typed = typing.join().map_err(|_| anyhow::anyhow!("typist"));
    ended.with_context(|| host.said(SERVICE))?;
    let (typist, took) = typed?
        .context("typing")
        .with_context(|| host.said(SERVICE))?;
    // Its end would end what it sent just now.
    let Typist {
        client: _client,
        recording,
        typed,
        ..
    } = typist;
    let seen = recording.finish(SOON * 3);
    let mut seen = seen.with_context(|| host.said(SERVICE))?;
    seen.retain(|line| recorded(line).is_none());
    let differ = seen.iter().zip(&typed).position(|(a, b)| a != b);
    let differ = differ.or((seen.len() != typed.len()).then_some(seen.len().min(typed.len())));
    if let Some(place) = differ {
        let around = |list: &[String]| {
            let from = place.saturating_sub(4);
            let to = (place + 8).min(list.len());
            list.get(from..to).unwrap_or_default().join(", ")
        };
        anyhow::bail!(
            "event {place} of {}: seen {}; typed {}; {}",
            typed.len(),
            around(&seen),
            around(&typed),
            host.said(SERVICE)
        );
    }
    eprintln!(
        "{rounds} ends within {} events, {:.1} keys a second",
        typed.len(),
        typed.len() as f64 / EVENTS_A_KEY as f64 / took.as_secs_f64()
    );
    assert_silent(&vm, &before)?;
    ensure!(vm.command(&format!("key-state {NAME}"))?.is_empty());
    drop(vm);
    host.sandbox
        .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
    ensure!(host.sandbox.property(SERVICE, "Result")? == "success");
    Ok(())
}

/// Somebody who types, and waits where the guest is slower than that.
struct Typist {
    client: EventsClient,
    /// What the guest records.
    recording: Running,
    /// How many events it has, as far as it said.
    recorded: usize,
    /// What was typed, in the guest's words.
    typed: Vec<String>,
}

impl Typist {
    /// Types until told to stop, then [`ESC`], which ends the recording.
    fn type_until(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut due = Instant::now();
        let mut keys = KEYS.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            let key = *keys.next().unwrap_or(&KEYS[0]);
            for value in [1, 0] {
                self.send(key, value)?;
                due += HALF;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        [1, 0]
            .into_iter()
            .try_for_each(|value| self.send(ESC, value))
    }

    /// Presses or releases a key, once the guest has room for it.
    fn send(&mut self, code: u16, value: i32) -> anyhow::Result<()> {
        let typed = [format!("key {code} {value}"), "syn 0 0".to_owned()];
        while self.typed.len() + typed.len() > self.recorded + AHEAD {
            let line = self.recording.line(SOON)?;
            let line = line.context("the recording has ended")?;
            self.recorded = recorded(&line).with_context(|| format!("the guest said {line:?}"))?;
        }
        self.client
            .send(&[Event::new(EV_KEY, code, value), Event::report()])?;
        self.typed.extend(typed);
        Ok(())
    }
}

/// The number of events in what the guest says about the progress of a recording.
fn recorded(line: &str) -> Option<usize> {
    line.strip_prefix("recorded ")?.parse().ok()
}
