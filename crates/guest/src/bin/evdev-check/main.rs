// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs vhost-user-input on a kernel's own evdev devices and checks what a guest would get.
//!
//! For a Linux guest that plays the host: it needs /dev/uinput, the program as
//! `/usr/bin/vhost-user-input`, and QEMU's virtio keyboard. Each check that held is a line. The argument `replug` is for
//! those of devices that come back, `match` for those of devices that are found by their numbers, `killed` for a program
//! that is killed, `outlived` for what happens to devices meanwhile, `hands` for those of devices that change hands.

mod hands;
mod killed;
mod matched;
mod outlived;
mod replug;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use evdev::RelativeAxisCode;
use evdev::uinput::VirtualDevice;
use evdev::{AttributeSet, BusType, Device, EventType, InputEvent, InputId, KeyCode, LedCode};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Command, Memory, Program, SocketForm};
use rustix::process::Signal;

const PROGRAM: &str = "/usr/bin/vhost-user-input";
const NAME: &str = "Check Keyboard";
const SOON: Duration = Duration::from_secs(60);
const A: u16 = KeyCode::KEY_A.0;
const B: u16 = KeyCode::KEY_B.0;
const KEY: u16 = EventType::KEY.0;
const REL: u16 = EventType::RELATIVE.0;
const LED: u16 = EventType::LED.0;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => devices()?,
        Some("killed") => killed::check()?,
        Some("replug") => replug::check()?,
        Some("match") => matched::check()?,
        Some("hands") => hands::check()?,
        Some("outlived") => outlived::check()?,
        Some(other) => bail!("there are no checks named {other}"),
    }
    println!("all checks held");
    Ok(())
}

fn devices() -> anyhow::Result<()> {
    description_and_keys()?;
    grab()?;
    lost_events()?;
    lamps()?;
    unplugged()
}

/// A device that this process plays.
struct Played {
    device: VirtualDevice,
    node: PathBuf,
}

impl Played {
    fn new() -> anyhow::Result<Self> {
        Self::named(NAME)
    }

    fn named(name: &str) -> anyhow::Result<Self> {
        let keys: AttributeSet<KeyCode> = (1..=88).map(KeyCode::new).collect();
        let axes: AttributeSet<RelativeAxisCode> =
            [RelativeAxisCode::REL_X, RelativeAxisCode::REL_Y]
                .into_iter()
                .collect();
        let device = VirtualDevice::builder()
            .context("cannot open /dev/uinput")?
            .name(name)
            .input_id(InputId::new(BusType::BUS_USB, 0x1d6b, 0x0104, 0x0111))
            .with_keys(&keys)?
            .with_relative_axes(&axes)?
            .build()?;
        Self::of(device)
    }

    fn of(mut device: VirtualDevice) -> anyhow::Result<Self> {
        let node = device.enumerate_dev_nodes_blocking()?.next();
        let node = node.context("the device has no node")??;
        Ok(Self { device, node })
    }

    /// Another reader of the host.
    fn reader(&self) -> anyhow::Result<Device> {
        let reader = Device::open(&self.node)?;
        reader.set_nonblocking(true)?;
        Ok(reader)
    }

    fn report(&mut self, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        let events: Vec<InputEvent> = events
            .iter()
            .map(|&(kind, code, value)| InputEvent::new(kind, code, value))
            .collect();
        Ok(self.device.emit(&events)?)
    }
}

/// The program on `node`, and a guest's driver.
struct Served {
    input: Input,
    program: Program,
}

impl Served {
    fn new(node: &std::path::Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let path = format!("--evdev-path={}", node.display());
        Self::with(&[&[path.as_str()], arguments].concat())
    }

    fn with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::to(arguments, InputOptions::default())
    }

    /// Of a guest with a driver of its own kind.
    fn to(arguments: &[&str], driver: InputOptions) -> anyhow::Result<Self> {
        let mut program = Command::new(PROGRAM)
            .args(arguments)
            .socket(SocketForm::Path)
            .spawn()?;
        let session = program.session()?;
        let mut input = Input::start(session, &Memory::with_size(1 << 20)?, driver)?;
        // Answered once the queues are served.
        input.send_status(&[Event::new(0, 0, 0)])?;
        Ok(Self { input, program })
    }

    fn expect(&mut self, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        let report = self.input.next_report()?;
        let got: Vec<(u16, u16, i32)> = report
            .iter()
            .filter(|event| !event.is_report())
            .map(|event| (event.kind, event.code, event.value))
            .collect();
        ensure!(got == events, "the guest got {got:?}, not {events:?}");
        Ok(())
    }

    fn log(&self) -> String {
        self.program.stderr()
    }

    fn end(self) -> anyhow::Result<()> {
        let Self { input, mut program } = self;
        drop(input);
        let status = program.wait_exit(SOON)?;
        ensure!(status.success(), "{status}: {}", program.stderr());
        Ok(())
    }
}

fn description_and_keys() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut served = Served::new(&played.node, &[])?;
    ensure!(served.input.name()? == NAME);
    ensure!(served.input.devids()? == [3, 0x1d6b, 0x0104, 0x0111]);
    ensure!(served.input.codes(KEY)? == (1..=88).collect::<Vec<u16>>());
    ensure!(served.input.codes(REL)? == [0, 1]);
    played.report(&[(KEY, A, 1), (REL, 0, -7)])?;
    served.expect(&[(KEY, A, 1), (REL, 0, -7)])?;
    played.report(&[(KEY, A, 0)])?;
    served.expect(&[(KEY, A, 0)])?;
    served.end()?;
    println!("a device is described and its events arrive");
    Ok(())
}

/// Whether another reader of the host sees a key that is pressed now.
fn host_sees(played: &mut Played, reader: &mut Device) -> anyhow::Result<bool> {
    played.report(&[(KEY, B, 1)])?;
    played.report(&[(KEY, B, 0)])?;
    match reader.fetch_events() {
        Ok(mut events) => Ok(events.any(|event| event.code() == B)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn grab() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut reader = played.reader()?;
    ensure!(host_sees(&mut played, &mut reader)?, "before a guest runs");
    let mut served = Served::new(&played.node, &[])?;
    ensure!(!host_sees(&mut played, &mut reader)?, "while a guest runs");
    served.expect(&[(KEY, B, 1)])?;
    served.expect(&[(KEY, B, 0)])?;
    served.input.stop()?;
    ensure!(
        host_sees(&mut played, &mut reader)?,
        "after the driver left"
    );
    served.end()?;

    let mut shared = Served::new(&played.node, &["--no-grab"])?;
    ensure!(host_sees(&mut played, &mut reader)?, "with --no-grab");
    shared.expect(&[(KEY, B, 1)])?;
    shared.end()?;
    println!("the host sees the device only while no guest has it, or with --no-grab");
    Ok(())
}

fn lost_events() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut served = Served::new(&played.node, &[])?;
    played.report(&[(KEY, A, 1)])?;
    served.expect(&[(KEY, A, 1)])?;
    // More than the kernel keeps for a reader: it answers with SYN_DROPPED.
    served.program.signal(Signal::STOP)?;
    played.report(&[(KEY, A, 0)])?;
    played.report(&[(KEY, B, 1)])?;
    for n in 0..5000 {
        played.report(&[(REL, 0, n + 1)])?;
    }
    served.program.signal(Signal::CONT)?;
    let (mut a, mut b) = (1, 0);
    let mut reports = 0;
    let deadline = Instant::now() + SOON;
    while (a, b) != (0, 1) {
        ensure!(
            Instant::now() < deadline,
            "A is {a} and B is {b} to the guest"
        );
        for event in served.input.next_report()? {
            match (event.kind, event.code) {
                (KEY, A) => a = event.value,
                (KEY, B) => b = event.value,
                _ => {}
            }
        }
        reports += 1;
    }
    ensure!(reports < 5000, "the kernel has lost nothing");
    served.end()?;
    println!("after lost events the guest has the keys as they are");
    Ok(())
}

/// The device that QEMU gives this guest: one with lamps.
fn qemus_keyboard() -> Option<(PathBuf, Device)> {
    evdev::enumerate().find(|(_, device)| device.name() == Some("QEMU Virtio Keyboard"))
}

/// Waits until the lamp of Caps Lock is on, or off. `log` is what the program said.
fn wait_lit(keyboard: &Device, wanted: bool, log: impl Fn() -> String) -> anyhow::Result<()> {
    let deadline = Instant::now() + SOON;
    while keyboard.get_led_state()?.contains(LedCode::LED_CAPSL) != wanted {
        ensure!(
            Instant::now() < deadline,
            "the lamp is not {wanted}: {}",
            log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn lamps() -> anyhow::Result<()> {
    let (node, keyboard) = qemus_keyboard().context("QEMU's keyboard is missing")?;
    let lit =
        || -> anyhow::Result<bool> { Ok(keyboard.get_led_state()?.contains(LedCode::LED_CAPSL)) };
    ensure!(!lit()?);
    let mut served = Served::new(&node, &[])?;
    for wanted in [true, false] {
        let value = i32::from(wanted);
        served.input.send_status(&[
            Event::new(LED, LedCode::LED_CAPSL.0, value),
            Event::report(),
        ])?;
        wait_lit(&keyboard, wanted, || served.log())?;
    }
    served.end()?;
    // What the host had comes back, whoever ends it: here it is a signal. Without a grab, at whose end
    // the kernel's console would light its own.
    let mut served = Served::new(&node, &["--no-grab"])?;
    served
        .input
        .send_status(&[Event::new(LED, LedCode::LED_CAPSL.0, 1), Event::report()])?;
    wait_lit(&keyboard, true, || served.log())?;
    served.program.signal(Signal::TERM)?;
    let status = served.program.wait_exit(SOON)?;
    ensure!(status.success(), "{status}: {}", served.program.stderr());
    ensure!(!lit()?, "the lamp stays as the guest had it");
    println!("lamps go on and off, and are the host's again at the end");
    Ok(())
}

fn unplugged() -> anyhow::Result<()> {
    let mut played = Played::new()?;
    let mut served = Served::new(&played.node, &[])?;
    played.report(&[(KEY, B, 1)])?;
    served.expect(&[(KEY, B, 1)])?;
    drop(played);
    served.expect(&[(KEY, B, 0)])?;
    served.program.wait_stderr("was unplugged")?;
    // Answered as before.
    served.input.send_status(&[Event::new(0, 0, 0)])?;
    ensure!(served.input.name()? == NAME);
    served.end()?;
    println!("a device that is unplugged leaves no key down, and a program that serves on");
    Ok(())
}
