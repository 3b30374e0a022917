//! Shows the product at work: units of a real systemd serve a screen and a keyboard to
//! a real Linux guest in QEMU.
//!
//! `demo [PICTURE]` saves the guest's screen as PICTURE (default `demo.png`) and ends
//! with status 0 only if every pixel and every key was right.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::mock::{KEYBOARD, MockInput};
use harness::qemu::Vm;
use harness::staging;
use harness::systemd::Sandbox;

const GPU: &str = "vhost-user-gpu@demo";
const INPUT: &str = "vhost-user-input@demo:kbd";
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
    let picture = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("demo.png"), PathBuf::from);
    match demo(&clock, &picture) {
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

fn demo(clock: &Clock, picture: &std::path::Path) -> anyhow::Result<()> {
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
    let mut keyboard = MockInput::start_in(&sandbox, &[KEYBOARD])?;
    let drop_in = format!(
        "{}Environment=EVDEV_PATH={}\nUser=vu-input-demo-kbd\n",
        keyboard.drop_in(),
        keyboard.path(0)
    );
    sandbox.drop_in(&format!("{INPUT}.service"), &drop_in)?;
    for unit in [GPU, INPUT] {
        sandbox.systemctl(&["start", &format!("{unit}.socket")])?;
        clock.say(&format!("systemctl start {unit}.socket"));
    }

    let mut vm = Vm::builder(&artifacts)
        .gpu_socket(&sandbox.path("/run/vhost-user/gpu/demo.sock"))
        .input_socket(&sandbox.path("/run/vhost-user/input/demo:kbd.sock"))
        .boot()
        .map_err(|error| with_journal(error, &sandbox))?;
    clock.say("Linux has booted in QEMU, on the two sockets");
    for unit in [GPU, INPUT] {
        let unit = format!("{unit}.service");
        let status = sandbox.property(&unit, "StatusText")?;
        clock.say(&format!(
            "{unit}: {}, {status:?}",
            sandbox.property(&unit, "ActiveState")?
        ));
    }

    let shown = show(&mut vm, &mut keyboard, clock).map_err(|error| with_journal(error, &sandbox));
    shown?.save_png(picture)?;
    clock.say(&format!("the screen is saved as {}", picture.display()));

    drop(vm);
    for unit in [GPU, INPUT] {
        let service = format!("{unit}.service");
        sandbox.wait_property(&service, "ActiveState", "inactive", SOON)?;
        let result = sandbox.property(&service, "Result")?;
        ensure!(result == "success", "{service} ended with {result}");
        sandbox.wait_property(&format!("{unit}.socket"), "SubState", "listening", SOON)?;
    }
    clock.say("QEMU is gone, the backends have ended well, the sockets listen again");
    Ok(())
}

/// Lets the guest draw and listen; returns its screen.
fn show(vm: &mut Vm, keyboard: &mut MockInput, clock: &Clock) -> anyhow::Result<Image> {
    let (width, height) = SCREEN;
    vm.command(&format!("testcard {width}x{height}"))?;
    let screen = vm.wait_screen(&Image::test_card(width, height), SOON)?;
    let count = screen.pixels.len();
    clock.say(&format!(
        "the guest drew a test card; all {count} pixels are right"
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

fn with_journal(error: anyhow::Error, sandbox: &Sandbox) -> anyhow::Error {
    match sandbox.journal(&["--lines=40", "--output=short-monotonic"]) {
        Ok(journal) => error.context(format!("the journal of the private systemd:\n{journal}")),
        Err(_) => error,
    }
}
