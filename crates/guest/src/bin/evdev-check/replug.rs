// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that are unplugged and come back, under another number.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use evdev::uinput::VirtualDevice;
use evdev::{AbsInfo, AbsoluteAxisCode, AttributeSet, KeyCode, LedCode, PropType, UinputAbsSetup};
use frontend::input::Event;

use crate::{A, B, KEY, LED, NAME, Played, REL, SOON, Served, host_sees, qemus_keyboard, wait_lit};

pub(crate) const ABS: u16 = evdev::EventType::ABSOLUTE.0;
pub(crate) const SLOT: u16 = AbsoluteAxisCode::ABS_MT_SLOT.0;
pub(crate) const CONTACT: u16 = AbsoluteAxisCode::ABS_MT_TRACKING_ID.0;
pub(crate) const X: u16 = AbsoluteAxisCode::ABS_MT_POSITION_X.0;

pub(crate) fn check() -> anyhow::Result<()> {
    keyboard()?;
    touch_screen()?;
    lamps()?;
    node()?;
    another_kind()?;
    another_of_the_model()?;
    absent_at_start()?;
    Ok(())
}

/// A lasting name, made and removed as udev does it, with its folder.
pub(crate) struct Link(PathBuf);

impl Link {
    /// The name of `node`.
    pub(crate) fn to(node: &Path) -> anyhow::Result<Self> {
        let link = Self("/dev/input/by-id/check-event".into());
        link.make(node)?;
        Ok(link)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn make(&self, node: &Path) -> anyhow::Result<()> {
        let folder = self.0.parent().context("it is in a folder")?;
        fs::create_dir_all(folder)?;
        let name = node.file_name().context("a node has a name")?;
        let new = folder.join(".new");
        symlink(Path::new("..").join(name), &new)?;
        Ok(fs::rename(new, &self.0)?)
    }

    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.0)?;
        let folder = self.0.parent().context("it is in a folder")?;
        Ok(fs::remove_dir(folder)?)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Each time with a key held, half of the times with one held as it comes back, and with other numbers.
fn keyboard() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut served = Served::new(&link.0, &[])?;
    let mut nodes = std::collections::BTreeSet::new();
    for round in 0..100 {
        nodes.insert(played.node.clone());
        played.report(&[(KEY, B, 1), (REL, 0, 1)])?;
        served.expect(&[(KEY, B, 1), (REL, 0, 1)])?;
        drop(played);
        served
            .expect(&[(KEY, B, 0)])
            .with_context(|| format!("unplugged the {round}th time: {}", served.log()))?;
        link.remove()?;
        // Of the same kind, and with its number.
        let decoy = (round % 2 == 0).then(Played::new).transpose()?;
        played = Played::new()?;
        let held = round % 3 == 0;
        if held {
            played.report(&[(KEY, A, 1)])?;
        }
        link.make(&played.node)?;
        if !held {
            played.report(&[(KEY, A, 1)])?;
        }
        served
            .expect(&[(KEY, A, 1)])
            .with_context(|| format!("plugged in the {round}th time: {}", served.log()))?;
        drop(decoy);
        played.report(&[(KEY, A, 0)])?;
        // A press may come twice: in the state that is read, and as the event that was under way.
        let told = served.keys()?;
        if told == [(KEY, A, 1)] {
            served.expect(&[(KEY, A, 0)])?;
        } else {
            ensure!(told == [(KEY, A, 0)], "the guest was told {told:?}");
        }
    }
    ensure!(nodes.len() > 1, "the number was always the same");
    let mut reader = played.reader()?;
    ensure!(
        !host_sees(&mut played, &mut reader)?,
        "it is not grabbed again"
    );
    served.expect(&[(KEY, B, 1)])?;
    served.expect(&[(KEY, B, 0)])?;
    served.end()?;
    println!("a keyboard is unplugged and comes back 100 times");
    Ok(())
}

/// A touch screen with ten slots.
pub(crate) fn touch() -> anyhow::Result<Played> {
    let axis = |code, max| UinputAbsSetup::new(code, AbsInfo::new(0, 0, max, 0, 0, 0));
    let keys: AttributeSet<KeyCode> = [KeyCode::BTN_TOUCH].into_iter().collect();
    let direct: AttributeSet<PropType> = [PropType::DIRECT].into_iter().collect();
    let device = VirtualDevice::builder()?
        .name("Check Touch Screen")
        .with_keys(&keys)?
        .with_properties(&direct)?
        .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_MT_SLOT, 9))?
        .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_MT_TRACKING_ID, 65535))?
        .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_MT_POSITION_X, 1000))?
        .build()?;
    Played::of(device)
}

fn touch_screen() -> anyhow::Result<()> {
    let touched = KeyCode::BTN_TOUCH.0;
    let mut played = touch()?;
    let link = Link::to(&played.node)?;
    let mut served = Served::new(&link.0, &[])?;
    for round in 0..10 {
        let down = [
            (ABS, SLOT, 1),
            (ABS, CONTACT, 2 * round + 1),
            (ABS, X, 10 + round),
            (KEY, touched, 1),
        ];
        played.report(&down)?;
        served.expect_among(&[(ABS, CONTACT, 2 * round + 1), (KEY, touched, 1)])?;
        drop(played);
        // The kernel may release the key in a report of its own.
        served.expect_among(&[(ABS, CONTACT, -1), (KEY, touched, 0)])?;
        link.remove()?;
        played = touch()?;
        let finger = [
            (ABS, SLOT, 2),
            (ABS, CONTACT, 2 * round + 2),
            (ABS, X, 500 + round),
        ];
        played.report(&finger)?;
        link.make(&played.node)?;
        served.expect_among(&[(ABS, CONTACT, 2 * round + 2), (ABS, X, 500 + round)])?;
        played.report(&[(ABS, CONTACT, -1)])?;
        served.expect_among(&[(ABS, CONTACT, -1)])?;
    }
    served.end()?;
    println!("touches are lifted, and are there again");
    Ok(())
}

/// QEMU's keyboard goes and comes with its driver.
fn lamps() -> anyhow::Result<()> {
    const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_input";
    let (node, keyboard) = qemus_keyboard().context("QEMU's keyboard is missing")?;
    let name = node.file_name().context("a node has a name")?;
    let place = fs::canonicalize(
        Path::new("/sys/class/input")
            .join(name)
            .join("device/device"),
    )?;
    let place = place
        .file_name()
        .context("a device has a name")?
        .to_os_string();
    let place = place.to_string_lossy();
    let link = Link::to(&node)?;
    let mut served = Served::new(&link.0, &[])?;
    served.led(true)?;
    wait_lit(&keyboard, true, || served.log())?;
    for round in 0..10 {
        fs::write(format!("{DRIVER}/unbind"), place.as_bytes())?;
        link.remove()?;
        let lit = round % 2 == 1;
        // While it is away.
        served.led(lit)?;
        fs::write(format!("{DRIVER}/bind"), place.as_bytes())?;
        let began = Instant::now();
        let (node, keyboard) = loop {
            match qemus_keyboard() {
                Some(found) => break found,
                None if began.elapsed() > SOON => bail!("QEMU's keyboard does not come back"),
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        link.make(&node)?;
        wait_lit(&keyboard, lit, || served.log())?;
        served.led(!lit)?;
        wait_lit(&keyboard, !lit, || served.log())?;
    }
    served.end()?;
    println!("lamps are as the guest set them last");
    Ok(())
}

/// Without a lasting name, by the number.
fn node() -> anyhow::Result<()> {
    let played = Played::new()?;
    let node = played.node.clone();
    let mut served = Served::new(&node, &[])?;
    drop(played);
    served.program.wait_stderr("was unplugged")?;
    let mut played = Played::new()?;
    ensure!(played.node == node, "it got another number");
    played.report(&[(KEY, A, 1)])?;
    served.expect(&[(KEY, A, 1)])?;
    served.end()?;
    println!("a node that comes back is served");
    Ok(())
}

fn another_kind() -> anyhow::Result<()> {
    let played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut served = Served::new(&link.0, &[])?;
    drop(played);
    link.remove()?;
    let mut other = Played::named("Other Keyboard")?;
    link.make(&other.node)?;
    served
        .program
        .wait_stderr("is refused: it is another device, Other Keyboard (1d6b:0104)")?;
    let mut reader = other.reader()?;
    ensure!(
        host_sees(&mut other, &mut reader)?,
        "what was refused is not the host's"
    );
    drop(other);
    link.remove()?;
    let mut played = Played::new()?;
    link.make(&played.node)?;
    played.report(&[(KEY, A, 1)])?;
    // Nothing of the other one came before.
    served.expect(&[(KEY, A, 1)])?;
    served.end()?;
    println!("a device of another kind is refused");
    Ok(())
}

/// udev gives the link of two devices without serial numbers to the one that is left.
fn another_of_the_model() -> anyhow::Result<()> {
    let mut other = Played::new()?;
    let played = Played::new()?;
    let link = Link::to(&played.node)?;
    let mut served = Served::new(&link.0, &[])?;
    drop(played);
    link.make(&other.node)?;
    served.program.wait_stderr("which was there beside it")?;
    let mut reader = other.reader()?;
    ensure!(
        host_sees(&mut other, &mut reader)?,
        "the other one is not the host's"
    );
    let mut played = Played::new()?;
    link.make(&played.node)?;
    played.report(&[(KEY, A, 1)])?;
    served.expect(&[(KEY, A, 1)])?;
    served.end()?;
    println!("{NAME} of the same model stays with the host");
    Ok(())
}

fn absent_at_start() -> anyhow::Result<()> {
    let wait = "--wait=/tmp/device.json";
    fs::create_dir_all("/tmp")?;
    let played = Played::new()?;
    let link = Link::to(&played.node)?;
    Served::new(&link.0, &[wait])?.end()?;
    drop(played);
    link.remove()?;
    let mut served = Served::new(&link.0, &[wait])?;
    ensure!(served.input.name()? == NAME);
    ensure!(served.input.codes(KEY)? == (1..=88).collect::<Vec<u16>>());
    let mut played = Played::new()?;
    played.report(&[(KEY, A, 1)])?;
    link.make(&played.node)?;
    served.expect(&[(KEY, A, 1)])?;
    played.report(&[(KEY, A, 0)])?;
    served.expect(&[(KEY, A, 0)])?;
    let mut reader = played.reader()?;
    ensure!(!host_sees(&mut played, &mut reader)?, "it is not grabbed");
    served.expect(&[(KEY, B, 1)])?;
    served.expect(&[(KEY, B, 0)])?;
    served.end()?;
    println!("a device that was absent at the start is the guest's when it comes");
    Ok(())
}

impl Served {
    /// The guest's driver sets the lamp of Caps Lock.
    fn led(&mut self, lit: bool) -> anyhow::Result<()> {
        let led = Event::new(LED, LedCode::LED_CAPSL.0, lit.into());
        Ok(self.input.send_status(&[led, Event::report()])?)
    }

    /// The events of the next report.
    fn keys(&mut self) -> anyhow::Result<Vec<(u16, u16, i32)>> {
        let report = self.input.next_report()?;
        let events = report.iter().filter(|event| !event.is_report());
        Ok(events
            .map(|event| (event.kind, event.code, event.value))
            .collect())
    }

    /// The next reports contain these events, in any order.
    fn expect_among(&mut self, wanted: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        let mut told = Vec::new();
        while !wanted.iter().all(|event| told.contains(event)) {
            let keys = self.keys();
            told.extend(keys.with_context(|| format!("after {told:?}, not all of {wanted:?}"))?);
        }
        Ok(())
    }
}
