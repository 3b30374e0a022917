// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shows the product at work: units of a real systemd serve a screen and a keyboard to a real Linux guest in QEMU,
//! and a console through which one sees and uses it.
//!
//! `demo [--keep] [PICTURE]` saves the guest's screen as PICTURE (default `demo.png`) and ends with status 0 only if
//! every pixel and every key was right. With `--keep` the VM stays up to be looked at.

mod console;
mod keep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::mock::{KEYBOARD, MockInput};
use harness::qemu::Vm;
use harness::staging;
use harness::systemd::Sandbox;

/// The keyboard of the host, beside those of the console.
const INPUT: &str = "vhost-user-input@demo:kbd";
/// Services that the VM uses, and the console's.
const SERVICES: [&str; 5] = [
    "vhost-user-gpu@demo",
    "vhost-user-input@demo:keyboard",
    "vhost-user-input@demo:tablet",
    INPUT,
    "vhost-vnc@demo",
];
const SCREEN: (u32, u32) = (1280, 800);
/// The keys of "hello".
const KEYS: [u16; 5] = [35, 18, 38, 38, 24];
const CAPS_LOCK: u16 = 1;
const SOON: Duration = Duration::from_secs(60);

/// Tells what happens and when.
struct Clock(Instant);

impl Clock {
    fn say(&self, what: &str) {
        println!("[{:6.2} s] {what}", self.0.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    let clock = Clock(Instant::now());
    let mut words: Vec<_> = std::env::args_os().skip(1).collect();
    let count = words.len();
    words.retain(|word| word != "--keep");
    let is_kept = words.len() < count;
    let picture = words
        .first()
        .map_or_else(|| PathBuf::from("demo.png"), PathBuf::from);
    match demo(&clock, &picture, is_kept) {
        Ok(()) => {
            clock.say("done: every pixel and every key was right");
            ExitCode::SUCCESS
        }
        Err(error) => {
            clock.say("failed");
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(clock: &Clock, picture: &Path, is_kept: bool) -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| clock.say(step))?;
    let (major, minor) = artifacts.qemu.version;
    clock.say(&format!(
        "QEMU {major}.{minor} ({}), Linux {}, {}",
        artifacts.qemu.program.display(),
        artifacts.kernel_version,
        artifacts.accelerator.name()
    ));

    let staging = staging::stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    clock.say("a private systemd is up with the units installed");
    vhostctl(&sandbox, &["add", "console", "demo", "--now"])?;
    clock.say("vhostctl add console demo --now");
    let mut keyboard = MockInput::start_in(&sandbox, &[KEYBOARD])?;
    let drop_in = format!(
        "{}Environment=EVDEV_PATH={}\nUser=vu-input-demo-kbd\n",
        keyboard.drop_in(),
        keyboard.path(0)
    );
    sandbox.drop_in(&format!("{INPUT}.service"), &drop_in)?;
    sandbox.systemctl(&["start", &format!("{INPUT}.socket")])?;
    clock.say(&format!("systemctl start {INPUT}.socket"));

    let mut vm =
        boot(&artifacts, &sandbox, is_kept).map_err(|error| with_journal(error, &sandbox))?;
    clock.say("Linux has booted in QEMU, with what vhostctl qemu-args demo says");
    for unit in SERVICES.into_iter().take(4) {
        let unit = format!("{unit}.service");
        let status = sandbox.property(&unit, "StatusText")?;
        clock.say(&format!(
            "{unit}: {}, {status:?}",
            sandbox.property(&unit, "ActiveState")?
        ));
    }

    let shown = show(&mut vm, &mut keyboard, clock)
        .and_then(|screen| console::show(&mut vm, &sandbox, &screen, clock))
        .map_err(|error| with_journal(error, &sandbox));
    shown?.save_png(picture)?;
    clock.say(&format!("the screen is saved as {}", picture.display()));
    if is_kept {
        keep::until_told(&mut vm, &sandbox)?;
    }

    drop(vm);
    for unit in SERVICES {
        let service = format!("{unit}.service");
        sandbox.wait_property(&service, "ActiveState", "inactive", SOON)?;
        let result = sandbox.property(&service, "Result")?;
        ensure!(result == "success", "{service} ended with {result}");
        sandbox.wait_property(&format!("{unit}.socket"), "SubState", "listening", SOON)?;
    }
    clock.say("QEMU is gone, all services have ended well, the sockets listen again");
    Ok(())
}

/// Starts the VM with the arguments that `vhostctl` prints.
fn boot(artifacts: &Artifacts, sandbox: &Sandbox, is_kept: bool) -> anyhow::Result<Vm> {
    let line = String::from_utf8(vhostctl(sandbox, &["qemu-args", "demo"])?)?;
    let words = sandbox.words_outside(&line)?;
    let mut builder = Vm::builder(artifacts).arguments(&words);
    if is_kept {
        builder = builder.kernel_options(keep::KERNEL_OPTIONS);
    }
    if !line.contains("demo:kbd") {
        builder = builder.input_socket(&sandbox.path("/run/vhost-user/input/demo:kbd.sock"));
    }
    builder.boot()
}

/// Lets the guest draw and listen; returns its screen.
fn show(vm: &mut Vm, keyboard: &mut MockInput, clock: &Clock) -> anyhow::Result<Image> {
    let (width, height) = SCREEN;
    vm.command(&format!("testcard {width}x{height}"))?;
    let screen = vm.wait_screen(&Image::test_card(width, height), SOON)?;
    let count = screen.pixels.len();
    clock.say(&format!(
        "the guest drew a test card; QEMU shows it, all {count} pixels are right"
    ));

    let host = keyboard.description(0)?.clone();
    let guest = vm.command(&format!("evdev-list {}", host.name))?.join("\n") + "\n";
    ensure!(
        guest == host.to_string(),
        "the guest sees another keyboard:\n{guest}not\n{host}"
    );
    clock.say(&format!(
        "the guest has the keyboard {:?}, as the host describes it",
        host.name
    ));

    let listening = vm.listen(KEYS.len() * 2, &host.name)?;
    keyboard.type_keys(0, &KEYS)?;
    let events = listening.finish(SOON).context("the keys do not arrive")?;
    let expected: Vec<String> = KEYS
        .iter()
        .flat_map(|key| [(key, 1), (key, 0)])
        .flat_map(|(key, value)| [format!("key {key} {value}"), "syn 0 0".to_owned()])
        .collect();
    ensure!(
        events == expected,
        "typed {expected:?}, but the guest got {events:?}"
    );
    clock.say(&format!(
        "{} keys typed on the host, the guest got exactly these",
        KEYS.len()
    ));

    vm.command(&format!("led {} {CAPS_LOCK} on", host.name))?;
    keyboard
        .wait_led(0, CAPS_LOCK, true, SOON)
        .context("the LED stays dark")?;
    clock.say("the guest lit the keyboard's Caps Lock LED on the host");
    Ok(screen)
}

/// Runs `vhostctl` beside the private systemd, which has to succeed, and returns what it prints.
fn vhostctl(sandbox: &Sandbox, words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let command = ["vhostctl"].into_iter().chain(words.iter().copied());
    let output = sandbox.exec(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "vhostctl {}: {said}",
        words.join(" ")
    );
    Ok(output.stdout)
}

fn with_journal(error: anyhow::Error, sandbox: &Sandbox) -> anyhow::Error {
    match sandbox.journal(&["--lines=40", "--output=short-monotonic"]) {
        Ok(journal) => error.context(format!("the journal of the private systemd:\n{journal}")),
        Err(_) => error,
    }
}
