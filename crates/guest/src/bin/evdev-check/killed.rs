// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process is killed while a device is used, and the next one goes on: host and guest notice nothing.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use evdev::KeyCode;
use frontend::Memory;
use frontend::input::{Event, Input, InputOptions};
use frontend::manager::{Service, ServiceOptions};

use crate::replug::Link;
use crate::{A, B, KEY, PROGRAM, Played, REL, SOON, host_sees};

const C: u16 = KeyCode::KEY_C.0;

pub(crate) fn check() -> anyhow::Result<()> {
    typing()?;
    lost_events()?;
    unplugged()
}

/// The program on `node` under a manager that keeps descriptors, and a guest's driver.
pub(crate) struct Kept {
    pub(crate) input: Input,
    pub(crate) service: Service,
}

impl Kept {
    pub(crate) fn new(node: &Path) -> anyhow::Result<Self> {
        Self::with(&[format!("--evdev-path={}", node.display())])
    }

    pub(crate) fn with(arguments: &[String]) -> anyhow::Result<Self> {
        let service = ServiceOptions::new(PROGRAM).args(arguments).start()?;
        let memory = Memory::with_size(1 << 20)?;
        let mut input = Input::start(service.session()?, &memory, InputOptions::default())?;
        // Answered once the queues are served.
        input.send_status(&[Event::new(0, 0, 0)])?;
        Ok(Self { input, service })
    }

    fn report(&mut self) -> anyhow::Result<Vec<Event>> {
        let report = self.input.next_report();
        report.with_context(|| self.service.log())
    }

    pub(crate) fn expect(&mut self, kind: u16, code: u16, value: i32) -> anyhow::Result<()> {
        let report = self.report()?;
        let wanted = [Event::new(kind, code, value), Event::report()];
        ensure!(report == wanted, "the guest got {report:?}, not {wanted:?}");
        Ok(())
    }

    /// The front-end leaves: nothing is kept for another process.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        let Self { input, mut service } = self;
        drop(input);
        let (status, _) = service.settle()?;
        ensure!(status.success(), "{status}: {}", service.log());
        Ok(())
    }
}

/// With a key held all the time, and keys typed before and after the death, and while no process lives.
fn typing() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut kept = Kept::new(&played.node)?;
    let mut reader = played.reader()?;
    played.report(&[(KEY, A, 1)])?;
    kept.expect(KEY, A, 1)?;
    for round in 0..30 {
        played.report(&[(KEY, B, 1)])?;
        if round % 2 == 0 {
            kept.expect(KEY, B, 1)?;
        }
        kept.service.kill()?;
        played.report(&[(KEY, B, 0)])?;
        played.report(&[(KEY, C, 1)])?;
        kept.service.start()?;
        played.report(&[(KEY, C, 0)])?;
        if round % 2 != 0 {
            kept.expect(KEY, B, 1)?;
        }
        for (code, value) in [(B, 0), (C, 1), (C, 0)] {
            kept.expect(KEY, code, value)
                .with_context(|| format!("killed the {round}th time"))?;
        }
    }
    let status = kept.service.restart()?;
    ensure!(
        Service::is_success(status),
        "{status}: {}",
        kept.service.log()
    );
    played.report(&[(KEY, A, 0)])?;
    kept.expect(KEY, A, 0)?;
    match reader.fetch_events() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => {
            let seen: Vec<_> = other?.collect();
            anyhow::bail!("the host saw {seen:?}");
        }
    }
    kept.end()?;
    ensure!(
        host_sees(&mut played, &mut reader)?,
        "the host does not get it back"
    );
    println!(
        "keys typed on a device arrive once, and only in the guest, whenever the process dies"
    );
    Ok(())
}

/// More than the kernel keeps while no process reads.
fn lost_events() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut kept = Kept::new(&played.node)?;
    played.report(&[(KEY, A, 1)])?;
    kept.expect(KEY, A, 1)?;
    kept.service.kill()?;
    played.report(&[(KEY, A, 0)])?;
    played.report(&[(KEY, B, 1)])?;
    for n in 0..5000 {
        played.report(&[(REL, 0, n + 1)])?;
    }
    kept.service.start()?;
    let (mut a, mut b) = (1, 0);
    let deadline = Instant::now() + SOON;
    while (a, b) != (0, 1) {
        ensure!(Instant::now() < deadline, "A is {a} and B is {b}");
        for event in kept.input.next_report()? {
            match (event.kind, event.code) {
                (KEY, A) => a = event.value,
                (KEY, B) => b = event.value,
                _ => {}
            }
        }
    }
    kept.end()?;
    println!("after events were lost meanwhile the guest has the keys as they are");
    Ok(())
}

/// It goes while no process lives, and comes back under the next one.
fn unplugged() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut kept = Kept::new(link.path())?;
    for _ in 0..3 {
        played.report(&[(KEY, B, 1)])?;
        kept.expect(KEY, B, 1)?;
        kept.service.kill()?;
        drop(played);
        link.remove()?;
        kept.service.start()?;
        kept.expect(KEY, B, 0)?;
        played = Played::new()?;
        link.make(&played.node)?;
        played.report(&[(KEY, A, 1)])?;
        kept.expect(KEY, A, 1)?;
        kept.service.kill_and_start()?;
        played.report(&[(KEY, A, 0)])?;
        // A press may come twice: in the state that is read, and as the event that was under way.
        let report = kept.report()?;
        if report != [Event::new(KEY, A, 1), Event::report()] {
            ensure!(
                report == [Event::new(KEY, A, 0), Event::report()],
                "the guest got {report:?}"
            );
            continue;
        }
        kept.expect(KEY, A, 0)?;
    }
    kept.end()?;
    println!("a device that went while no process lived leaves no key down, and comes back");
    Ok(())
}
