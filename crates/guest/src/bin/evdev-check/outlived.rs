// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What happens to devices while no process lives: they go, come back, are touched, and get other lamps.

use anyhow::{Context as _, ensure};
use evdev::{KeyCode, LedCode};
use frontend::input::Event;
use frontend::manager::Service;

use crate::killed::Kept;
use crate::replug::{ABS, CONTACT, Link, SLOT, X, touch};
use crate::{A, B, KEY, LED, Played, host_sees, qemus_keyboard, wait_lit};

const TOUCHED: u16 = KeyCode::BTN_TOUCH.0;

pub(crate) fn check() -> anyhow::Result<()> {
    keyboard_comes_back()?;
    keyboard_comes_back_later()?;
    contacts_stay()?;
    contacts_are_lifted()?;
    lamps()?;
    Ok(())
}

/// It goes and comes back while no process lives, with another number half of the times, and with a key held.
fn keyboard_comes_back() -> anyhow::Result<()> {
    // It has the link for a while, but was there before.
    let mut twin = Played::new()?;
    let mut played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut kept = Kept::new(link.path())?;
    for round in 0..20 {
        played.report(&[(KEY, B, 1)])?;
        kept.expect(KEY, B, 1)?;
        kept.service.kill()?;
        drop(played);
        link.make(&twin.node)?;
        let decoy = (round % 2 == 0)
            .then(|| Played::named("Decoy"))
            .transpose()?;
        played = Played::new()?;
        if round % 3 == 0 {
            link.make(&played.node)?;
        }
        kept.service.start()?;
        if round % 3 != 0 {
            link.make(&played.node)?;
        }
        kept.expect(KEY, B, 0)
            .with_context(|| format!("the {round}th time"))?;
        played.report(&[(KEY, A, 1)])?;
        kept.expect(KEY, A, 1)
            .with_context(|| format!("the {round}th time"))?;
        played.report(&[(KEY, A, 0)])?;
        kept.released(A)?;
        drop(decoy);
    }
    let mut reader = twin.reader()?;
    ensure!(
        host_sees(&mut twin, &mut reader)?,
        "the twin is not the host's"
    );
    kept.end()?;
    println!("a keyboard that went and came back while no process lived is the guest's");
    Ok(())
}

/// It goes while a process lives, and comes back while none does.
fn keyboard_comes_back_later() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut kept = Kept::new(link.path())?;
    for _ in 0..5 {
        played.report(&[(KEY, B, 1)])?;
        kept.expect(KEY, B, 1)?;
        drop(played);
        kept.expect(KEY, B, 0)?;
        link.remove()?;
        // It is away for more than one of them.
        kept.service.kill_and_start()?;
        kept.service.kill()?;
        played = Played::new()?;
        link.make(&played.node)?;
        kept.service.start()?;
        played.report(&[(KEY, A, 1)])?;
        kept.expect(KEY, A, 1)?;
        played.report(&[(KEY, A, 0)])?;
        kept.released(A)?;
    }
    kept.end()?;
    println!("a keyboard that was away, and came back while no process lived, is the guest's");
    Ok(())
}

/// Contacts move, are lifted and put down while no process lives.
fn contacts_stay() -> anyhow::Result<()> {
    let mut played = touch()?;
    let mut kept = Kept::new(&played.node)?;
    let first = [
        (ABS, SLOT, 0),
        (ABS, CONTACT, 1),
        (ABS, X, 1),
        (KEY, TOUCHED, 1),
    ];
    played.report(&first)?;
    kept.expect_among(&[(ABS, CONTACT, 1), (ABS, X, 1), (KEY, TOUCHED, 1)])?;
    for round in 0..30 {
        let (id, x) = (10 + round, 100 + round);
        played.report(&[(ABS, SLOT, 1), (ABS, CONTACT, id), (ABS, X, x)])?;
        if round % 2 == 0 {
            kept.expect_among(&[(ABS, CONTACT, id), (ABS, X, x)])?;
        }
        kept.service.kill()?;
        played.report(&[(ABS, X, x + 100)])?;
        kept.service.start()?;
        played.report(&[(ABS, CONTACT, -1)])?;
        if round % 2 != 0 {
            kept.expect_among(&[(ABS, CONTACT, id), (ABS, X, x)])?;
        }
        let told = kept.expect_among(&[(ABS, X, x + 100), (ABS, CONTACT, -1)])?;
        ensure!(told.len() == 2, "the {round}th time: {told:?}");
    }
    // The first contact was there all the time.
    let last = [(ABS, SLOT, 0), (ABS, CONTACT, -1), (KEY, TOUCHED, 0)];
    played.report(&last)?;
    let told = kept.expect_among(&last)?;
    ensure!(told.len() == last.len(), "{told:?}");
    kept.end()?;
    println!("contacts on a touch screen outlive 30 processes, and each is told once");
    Ok(())
}

/// It is unplugged with contacts, while no process lives and while one does, and comes back under the next one.
fn contacts_are_lifted() -> anyhow::Result<()> {
    let mut played = touch()?;
    let link = Link::to(&played.node)?;
    let mut kept = Kept::new(link.path())?;
    for round in 0..10 {
        let down = [
            (ABS, SLOT, 1),
            (ABS, CONTACT, 2 * round + 1),
            (ABS, X, 10 + round),
            (KEY, TOUCHED, 1),
        ];
        played.report(&down)?;
        kept.expect_among(&[(ABS, CONTACT, 2 * round + 1), (KEY, TOUCHED, 1)])?;
        if round % 2 == 0 {
            kept.service.kill()?;
            drop(played);
            link.remove()?;
            kept.service.start()?;
        } else {
            drop(played);
            link.remove()?;
        }
        // The kernel may release the key in a report of its own.
        kept.expect_among(&[(ABS, CONTACT, -1), (KEY, TOUCHED, 0)])?;
        // While it is away.
        kept.service.kill_and_start()?;
        played = touch()?;
        let finger = [
            (ABS, SLOT, 2),
            (ABS, CONTACT, 2 * round + 2),
            (ABS, X, 500 + round),
        ];
        played.report(&finger)?;
        link.make(&played.node)?;
        kept.expect_among(&[(ABS, CONTACT, 2 * round + 2), (ABS, X, 500 + round)])?;
        kept.service.kill_and_start()?;
        played.report(&[(ABS, CONTACT, -1)])?;
        kept.expect_among(&[(ABS, CONTACT, -1)])?;
    }
    kept.end()?;
    println!("touches are lifted once, and are there again, whenever the process dies");
    Ok(())
}

/// QEMU's keyboard: set before and while no process lives.
fn lamps() -> anyhow::Result<()> {
    let (node, keyboard) = qemus_keyboard().context("QEMU's keyboard is missing")?;
    let mut kept = Kept::new(&node)?;
    for round in 0..10 {
        let lit = round % 2 == 0;
        kept.input.send_status(&lamp(lit))?;
        wait_lit(&keyboard, lit, || kept.service.log())?;
        kept.service.kill()?;
        // The driver does not know.
        kept.input.submit_status(&lamp(!lit))?;
        kept.service.start()?;
        kept.input.wait_status(lamp(!lit).len())?;
        wait_lit(&keyboard, !lit, || kept.service.log())?;
        let status = kept.service.restart()?;
        ensure!(Service::is_success(status), "{status}");
        wait_lit(&keyboard, !lit, || kept.service.log())?;
    }
    kept.end()?;
    println!("lamps are as the guest set them last, whenever the process dies");
    Ok(())
}

/// What sets the lamp of Caps Lock.
fn lamp(lit: bool) -> [Event; 2] {
    let led = Event::new(LED, LedCode::LED_CAPSL.0, lit.into());
    [led, Event::report()]
}

impl Kept {
    /// The next reports release this key. It may have been told as pressed twice: in the state that is read, and as
    /// the event that was under way.
    fn released(&mut self, key: u16) -> anyhow::Result<()> {
        let told = self.expect_among(&[(KEY, key, 0)])?;
        let others = told.iter().filter(|event| **event != (KEY, key, 0));
        let pressed_twice = others.clone().all(|event| *event == (KEY, key, 1));
        ensure!(
            pressed_twice && others.count() <= 1,
            "the guest was told {told:?}"
        );
        Ok(())
    }

    /// The next reports contain these events, in any order. Returns all that came.
    fn expect_among(&mut self, wanted: &[(u16, u16, i32)]) -> anyhow::Result<Vec<(u16, u16, i32)>> {
        let mut told = Vec::new();
        while !wanted.iter().all(|event| told.contains(event)) {
            let report = self.input.next_report().with_context(|| {
                let log = self.service.log();
                format!("after {told:?}, not all of {wanted:?}: {log}")
            })?;
            let events = report.iter().filter(|event| !event.is_report());
            told.extend(events.map(|event| (event.kind, event.code, event.value)));
        }
        Ok(told)
    }
}
