// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that the host takes from a guest that runs, and gives again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use evdev::uinput::VirtualDevice;
use evdev::{AttributeSet, Device, KeyCode, LedCode, RelativeAxisCode};
use frontend::input::{Event, InputOptions};
use rustix::process::Signal;

use crate::{A, B, KEY, LED, Played, REL, SOON, Served, qemus_keyboard, wait_lit};

const LEFT: u16 = KeyCode::KEY_LEFTCTRL.0;
const RIGHT: u16 = KeyCode::KEY_RIGHTCTRL.0;
const CLICK: u16 = KeyCode::BTN_LEFT.0;
const CHORD: &str = "--grab-toggle=ctrl-ctrl";
const RELEASE: Signal = Signal::URG;
const GRAB: Signal = Signal::WINCH;

pub(crate) fn check() -> anyhow::Result<()> {
    chord()?;
    signals()?;
    lamps()?;
    group()?;
    silent_guest()?;
    turns()?;
    starts_again()?;
    Ok(())
}

/// A device of this process, and another reader of the host.
struct Hardware {
    played: Played,
    reader: Device,
}

impl Hardware {
    fn of(builder: evdev::uinput::VirtualDeviceBuilder<'_>) -> anyhow::Result<Self> {
        let played = Played::of(builder.build()?)?;
        let reader = played.reader()?;
        Ok(Self { played, reader })
    }

    fn keyboard() -> anyhow::Result<Self> {
        let keys: AttributeSet<KeyCode> = (1..=127).map(KeyCode::new).collect();
        Self::of(
            VirtualDevice::builder()?
                .name("Check Keyboard")
                .with_keys(&keys)?,
        )
    }

    fn mouse() -> anyhow::Result<Self> {
        let keys: AttributeSet<KeyCode> = [KeyCode::BTN_LEFT].into_iter().collect();
        let axes: AttributeSet<RelativeAxisCode> =
            [RelativeAxisCode::REL_X, RelativeAxisCode::REL_Y]
                .into_iter()
                .collect();
        Self::of(
            VirtualDevice::builder()?
                .name("Check Mouse")
                .with_keys(&keys)?
                .with_relative_axes(&axes)?,
        )
    }

    fn node(&self) -> &Path {
        &self.played.node
    }

    fn press(&mut self, code: u16, value: i32) -> anyhow::Result<()> {
        self.played.report(&[(KEY, code, value)])
    }

    fn strike(&mut self) -> anyhow::Result<()> {
        for (code, value) in [(LEFT, 1), (RIGHT, 1), (LEFT, 0), (RIGHT, 0)] {
            self.press(code, value)?;
        }
        Ok(())
    }

    /// What the host has seen of keys since the last call.
    fn seen(&mut self) -> anyhow::Result<Vec<(u16, i32)>> {
        let mut seen = Vec::new();
        loop {
            match self.reader.fetch_events() {
                Ok(events) => seen.extend(
                    events
                        .filter(|event| event.event_type().0 == KEY)
                        .map(|event| (event.code(), event.value())),
                ),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the program, or another, has grabbed it.
    fn is_grabbed(&mut self) -> anyhow::Result<bool> {
        match self.reader.grab() {
            Ok(()) => {
                self.reader.ungrab()?;
                Ok(false)
            }
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn wait_grabbed(&mut self, wanted: bool, of: &Served) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.is_grabbed()? != wanted {
            ensure!(
                began.elapsed() < SOON,
                "whether it is grabbed is not {wanted}: {}",
                of.program.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Served {
    /// The guest gets what is typed now, and nothing came before.
    fn has(&mut self, hardware: &mut Hardware) -> anyhow::Result<()> {
        for value in [1, 0] {
            hardware.press(B, value)?;
            self.expect(&[(KEY, B, value)])?;
        }
        Ok(())
    }
}

/// The host sees all of a chord, or nothing; the guest gets nothing while it is released.
fn chord() -> anyhow::Result<()> {
    let mut keyboard = Hardware::keyboard()?;
    let mut served = Served::new(keyboard.node(), &[CHORD])?;
    for round in 0..20 {
        keyboard.press(A, 1)?;
        served.expect(&[(KEY, A, 1)])?;
        keyboard.press(LEFT, 1)?;
        served.expect(&[(KEY, LEFT, 1)])?;
        keyboard.press(RIGHT, 1)?;
        let mut released = served.next()?;
        released.sort_unstable();
        let mut all = [(KEY, A, 0), (KEY, LEFT, 0)];
        all.sort_unstable();
        ensure!(released == all, "the guest was told {released:?}");
        ensure!(
            keyboard.is_grabbed()?,
            "it is the host's while its keys are held"
        );
        for code in [LEFT, A, RIGHT] {
            keyboard.press(code, 0)?;
        }
        keyboard
            .wait_grabbed(false, &served)
            .with_context(|| format!("the {round}th time"))?;
        let seen = keyboard.seen()?;
        ensure!(seen.is_empty(), "the host saw {seen:?} of the chord");

        keyboard.press(B, 1)?;
        keyboard.press(B, 0)?;
        keyboard.strike()?;
        keyboard.wait_grabbed(true, &served)?;
        let seen = keyboard.seen()?;
        let chord = [(LEFT, 1), (RIGHT, 1), (LEFT, 0), (RIGHT, 0)];
        ensure!(
            seen == [&[(B, 1), (B, 0)], &chord[..]].concat(),
            "the host saw {seen:?}"
        );
    }
    // Nothing of the host's time came before.
    served.has(&mut keyboard)?;
    ensure!(
        keyboard.seen()?.is_empty(),
        "the host sees what the guest has"
    );
    served.end()?;
    println!("a chord gives a keyboard to the host and to the guest 20 times");
    Ok(())
}

fn signals() -> anyhow::Result<()> {
    let mut keyboard = Hardware::keyboard()?;
    let mut served = Served::new(keyboard.node(), &[CHORD])?;
    for _ in 0..20 {
        keyboard.wait_grabbed(true, &served)?;
        served.has(&mut keyboard)?;
        served.program.signal(RELEASE)?;
        keyboard.wait_grabbed(false, &served)?;
        // Not for the chord to undo.
        keyboard.strike()?;
        keyboard.press(A, 1)?;
        keyboard.press(A, 0)?;
        ensure!(keyboard.seen()?.len() == 6, "the host does not have it");
        served.program.signal(GRAB)?;
    }
    keyboard.wait_grabbed(true, &served)?;
    served.has(&mut keyboard)?;
    // Without a handler they would be ignored, and with another the program would be gone.
    served.end()?;
    println!("signals give a keyboard to the host and to the guest 20 times");
    Ok(())
}

/// QEMU's keyboard has lamps.
fn lamps() -> anyhow::Result<()> {
    let (node, keyboard) = qemus_keyboard().context("QEMU's keyboard is missing")?;
    let mut served = Served::new(&node, &[])?;
    let lit = Event::new(LED, LedCode::LED_CAPSL.0, 1);
    served.input.send_status(&[lit, Event::report()])?;
    wait_lit(&keyboard, true, || served.log())?;
    for _ in 0..5 {
        served.program.signal(RELEASE)?;
        wait_lit(&keyboard, false, || served.log())?;
        served.program.signal(GRAB)?;
        wait_lit(&keyboard, true, || served.log())?;
    }
    served.end()?;
    println!("lamps are the host's, and the guest's again");
    Ok(())
}

fn group() -> anyhow::Result<()> {
    let folder = PathBuf::from("/tmp/grab-group");
    fs::create_dir_all(&folder)?;
    let file = folder.join("released");
    let option = format!("--grab-group={}", file.display());
    let (mut keyboard, mut mouse) = (Hardware::keyboard()?, Hardware::mouse()?);
    let mut typed = Served::new(keyboard.node(), &[CHORD, &option])?;
    let mut pointed = Served::new(mouse.node(), &[&option])?;
    for _ in 0..10 {
        keyboard.wait_grabbed(true, &typed)?;
        mouse.wait_grabbed(true, &pointed)?;
        typed.has(&mut keyboard)?;
        mouse.played.report(&[(KEY, CLICK, 1), (REL, 0, 5)])?;
        pointed.expect(&[(KEY, CLICK, 1), (REL, 0, 5)])?;
        keyboard.strike()?;
        keyboard.wait_grabbed(false, &typed)?;
        pointed.expect(&[(KEY, CLICK, 0)])?;
        // The host would drag with a button that it never sees released.
        ensure!(mouse.is_grabbed()?, "its button is held");
        mouse.press(CLICK, 0)?;
        mouse.wait_grabbed(false, &pointed)?;
        typed.saw_a_chord()?;
        keyboard.strike()?;
    }
    keyboard.wait_grabbed(true, &typed)?;
    mouse.wait_grabbed(true, &pointed)?;
    // By a command to one of them, and by a script.
    pointed.program.signal(RELEASE)?;
    keyboard.wait_grabbed(false, &typed)?;
    fs::remove_file(&file)?;
    keyboard.wait_grabbed(true, &typed)?;
    mouse.wait_grabbed(true, &pointed)?;
    fs::write(&file, "")?;
    keyboard.wait_grabbed(false, &typed)?;
    mouse.wait_grabbed(false, &pointed)?;
    // One that starts anew finds the group as it is.
    pointed.end()?;
    let pointed = Served::new(mouse.node(), &[&option])?;
    ensure!(!mouse.is_grabbed()?, "the group is released");
    // The next VM finds nothing of this one.
    pointed.end()?;
    typed.end()?;
    let typed = Served::new(keyboard.node(), &[CHORD, &option])?;
    ensure!(keyboard.is_grabbed()?, "the group is as it was left");
    ensure!(!file.exists(), "the group does not begin anew");
    typed.end()?;
    println!("a keyboard and a mouse change hands together");
    Ok(())
}

/// A guest that hangs: it has a driver, and gives no buffers.
fn silent_guest() -> anyhow::Result<()> {
    let mut keyboard = Hardware::keyboard()?;
    let driver = InputOptions {
        refill: false,
        ..InputOptions::default()
    };
    let path = format!("--evdev-path={}", keyboard.node().display());
    let mut served = Served::to(&[&path, CHORD], driver)?;
    // More than the program keeps for the guest, and no more at once than the kernel keeps for the program.
    for _ in 0..300 {
        for _ in 0..10 {
            keyboard.press(A, 1)?;
            keyboard.press(A, 0)?;
        }
        served.input.send_status(&[Event::new(0, 0, 0)])?;
    }
    for _ in 0..5 {
        keyboard.strike()?;
        keyboard.wait_grabbed(false, &served)?;
        keyboard.press(B, 1)?;
        keyboard.press(B, 0)?;
        ensure!(
            keyboard.seen()? == [(B, 1), (B, 0)],
            "the host does not have it"
        );
        keyboard.strike()?;
        keyboard.wait_grabbed(true, &served)?;
        keyboard.seen()?;
    }
    served.end()?;
    println!("a guest that takes no events does not keep a keyboard");
    Ok(())
}

/// Two guests with one keyboard.
fn turns() -> anyhow::Result<()> {
    let mut keyboard = Hardware::keyboard()?;
    let mut first = Served::new(keyboard.node(), &[CHORD, "--wait=/tmp/first.json"])?;
    let mut second = Served::new(keyboard.node(), &[CHORD, "--wait=/tmp/second.json"])?;
    second
        .program
        .wait_stderr("is grabbed by another process, perhaps for another VM")?;
    first.has(&mut keyboard)?;
    for _ in 0..10 {
        first.program.signal(RELEASE)?;
        keyboard.wait_grabbed(false, &first)?;
        // To the host, and not to the other guest.
        keyboard.press(A, 1)?;
        keyboard.press(A, 0)?;
        let seen = keyboard.seen()?;
        ensure!(
            seen == [(A, 1), (A, 0)],
            "the host saw {seen:?}: {}",
            first.log()
        );
        // What was typed before it heard of the signal.
        while second.input.next_event(Duration::from_millis(500)).is_ok() {}
        second.program.signal(GRAB)?;
        keyboard.wait_grabbed(true, &second)?;
        second.has(&mut keyboard)?;
        // The chord is the second guest's, who alone answers to it.
        keyboard.strike()?;
        keyboard.wait_grabbed(false, &second)?;
        second.saw_a_chord()?;
        keyboard.strike()?;
        keyboard.wait_grabbed(true, &second)?;
        keyboard.seen()?;
        second.has(&mut keyboard)?;
        // The first one asks, and gets it as soon as the second one gives it.
        first.program.signal(GRAB)?;
        first.has_not_yet(&mut keyboard, &mut second)?;
        second.program.signal(RELEASE)?;
        first.wait_for(&mut keyboard)?;
        first.has(&mut keyboard)?;
        keyboard.seen()?;
    }
    second.end()?;
    first.has(&mut keyboard)?;
    first.end()?;
    println!("two guests use a keyboard by turns");
    Ok(())
}

/// A guest that starts again while another one has the keyboard, and once that has gone.
fn starts_again() -> anyhow::Result<()> {
    let mut keyboard = Hardware::keyboard()?;
    let mut first = Served::new(keyboard.node(), &["--wait=/tmp/first.json"])?;
    first.has(&mut keyboard)?;
    let mut second = Served::new(keyboard.node(), &["--wait=/tmp/second.json"])?;
    let restart = |guest: &mut Served| -> anyhow::Result<()> {
        guest.input.stop()?;
        guest.input.restart()?;
        // What it was answered before, it has tried before.
        Ok(guest.input.send_status(&[Event::new(0, 0, 0)])?)
    };
    restart(&mut second)?;
    second
        .program
        .wait_stderr("is grabbed by another process, perhaps for another VM")?;
    first.has(&mut keyboard)?;
    first.end()?;
    // Nobody has asked for it.
    keyboard.press(A, 1)?;
    keyboard.press(A, 0)?;
    let seen = keyboard.seen()?;
    ensure!(seen == [(A, 1), (A, 0)], "the host saw {seen:?}");
    restart(&mut second)?;
    keyboard.wait_grabbed(true, &second)?;
    second.has(&mut keyboard)?;
    second.end()?;
    println!("a guest that starts again gets a keyboard that is free by now");
    Ok(())
}

impl Served {
    /// The guest may have seen keys of a chord, and that they are released.
    fn saw_a_chord(&mut self) -> anyhow::Result<()> {
        let mut pressed = 0;
        while let Ok(event) = self.input.next_event(Duration::from_millis(100)) {
            if event.is_report() {
                continue;
            }
            let is_of_chord = [LEFT, RIGHT].contains(&event.code);
            ensure!(is_of_chord && event.kind == KEY, "the guest got {event:?}");
            pressed += if event.value == 0 { -1 } else { 1 };
        }
        ensure!(pressed == 0, "a key stays pressed");
        Ok(())
    }

    /// The events of the next report.
    fn next(&mut self) -> anyhow::Result<Vec<(u16, u16, i32)>> {
        let report = self.input.next_report()?;
        let events = report.iter().filter(|event| !event.is_report());
        Ok(events
            .map(|event| (event.kind, event.code, event.value))
            .collect())
    }

    /// Another guest has what this one has asked for.
    fn has_not_yet(&mut self, keyboard: &mut Hardware, other: &mut Served) -> anyhow::Result<()> {
        other.has(keyboard)?;
        match self.input.next_event(Duration::from_millis(50)) {
            Ok(event) => bail!("the guest got {event:?}"),
            Err(_) => Ok(()),
        }
    }

    /// The guest gets what it has asked for.
    fn wait_for(&mut self, keyboard: &mut Hardware) -> anyhow::Result<()> {
        // Between the two it is nobody's.
        let began = Instant::now();
        loop {
            keyboard.press(A, 1)?;
            keyboard.press(A, 0)?;
            match self.input.next_event(Duration::from_millis(50)) {
                Ok(_) => break,
                Err(_) if began.elapsed() < SOON => {}
                Err(error) => return Err(error).context(self.log()),
            }
            // Before they are too many for the kernel to keep.
            keyboard.seen()?;
        }
        // The rest of these.
        while self.input.next_event(Duration::from_millis(500)).is_ok() {}
        Ok(())
    }
}
