// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest in QEMU uses the host's input devices: evdev tools see the same device, events
//! arrive, LEDs go back. Only the host's devices are mocks.

use std::process::Command as Process;
use std::time::{Duration, Instant};

use crate::common::{assert_clean_exit, input_program};
use anyhow::{Context as _, ensure};
use frontend::{Command, Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::mock::{KEYBOARD, MOUSE, MockInput, TABLET, TOUCHSCREEN, codes};
use harness::paths;
use harness::qemu::Vm;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A guest with all the mock's devices.
struct Machine {
    vm: Vm,
    programs: Vec<Program>,
    mock: MockInput,
}

impl Machine {
    fn boot(devices: &[&str]) -> anyhow::Result<Self> {
        let mut machine = Self::start(devices, &[])?;
        machine.vm.wait_ready()?;
        Ok(machine)
    }

    /// With further words on QEMU's command line, and a guest that may not be up yet.
    fn start(devices: &[&str], words: &[&str]) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let mock = MockInput::start(devices)?;
        let mut programs = Vec::new();
        let mut builder = Vm::builder(&artifacts);
        for device in 0..devices.len() {
            let mut command = Command::new(input_program())
                .arg(format!("--evdev-path={}", mock.path(device)))
                .socket(SocketForm::Path);
            for (name, value) in mock.environment() {
                command = command.env(name, value);
            }
            let program = command.spawn()?;
            program.wait_stderr("serving on")?;
            builder = builder.input_socket(program.socket_path());
            programs.push(program);
        }
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let vm = builder.arguments(&words).start()?;
        Ok(Self { vm, programs, mock })
    }

    fn name(&self, device: usize) -> anyhow::Result<String> {
        Ok(self.mock.description(device)?.name.clone())
    }

    /// Types two keys and has the guest report them.
    fn types(&mut self, device: usize) -> anyhow::Result<()> {
        let name = self.name(device)?;
        let listening = self.vm.listen(4, &name)?;
        self.mock.type_keys(device, &[30, 48])?;
        let said = || {
            self.programs
                .iter()
                .map(Program::stderr)
                .collect::<String>()
        };
        let events = listening.finish(SOON).with_context(said)?;
        let typed = ["key 30 1", "key 30 0", "key 48 1", "key 48 0"];
        let expected: Vec<&str> = typed.into_iter().flat_map(|key| [key, "syn 0 0"]).collect();
        assert_eq!(events, expected);
        Ok(())
    }

    /// Ends the VM; the programs have to end by themselves and let the devices go.
    fn finish(self) {
        drop(self.vm);
        for mut program in self.programs {
            assert_clean_exit(&mut program);
        }
    }
}

/// What evtest says of a mock device on the host.
fn evtest_on_host(mock: &MockInput, name: &str) -> anyhow::Result<Vec<String>> {
    let tools = paths::build_dir().join("guest/usr/bin");
    let output = Process::new(paths::program("guest")?)
        .args(["evtest", name])
        .env("PATH", tools)
        .envs(mock.environment())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn evtest_sees_every_device_as_on_the_host() -> anyhow::Result<()> {
    let devices = [KEYBOARD, MOUSE, TABLET, TOUCHSCREEN];
    let mut machine = Machine::boot(&devices)?;
    for device in 0..devices.len() {
        let name = machine.name(device)?;
        let host = evtest_on_host(&machine.mock, &name)?;
        ensure!(host.len() > 5, "{host:?}");
        assert_eq!(machine.vm.command(&format!("evtest {name}"))?, host);

        let described = machine.mock.description(device)?.to_string();
        let seen = machine
            .vm
            .command(&format!("evdev-list {name}"))?
            .join("\n");
        assert_eq!(seen.trim_end(), described.trim_end());
    }
    machine.finish();
    Ok(())
}

#[test]
fn guest_gets_keys_movements_and_touches_and_sets_leds() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[KEYBOARD, MOUSE, TOUCHSCREEN])?;
    machine.mock.wait_grab(0, true, SOON)?;
    machine.types(0)?;

    let mouse = machine.name(1)?;
    let listening = machine.vm.listen(4, &mouse)?;
    machine
        .mock
        .report(1, &[(codes::EV_REL, 0, -3), (codes::EV_REL, 1, 250)])?;
    machine
        .mock
        .report(1, &[(codes::EV_KEY, 272, 1), (codes::EV_REL, 8, 1)])?;
    assert_eq!(
        listening.finish(SOON)?,
        [
            "rel 0 -3",
            "rel 1 250",
            "syn 0 0",
            "key 272 1",
            "rel 8 1",
            "syn 0 0"
        ]
    );

    // More events than QEMU's queue has entries, in one report.
    let touch = machine.name(2)?;
    let listening = machine.vm.listen(21, &touch)?;
    let mut report = vec![(codes::EV_KEY, 330, 1)];
    let mut expected = Vec::new();
    for finger in 0..5 {
        report.push((codes::EV_ABS, 47, finger));
        report.push((codes::EV_ABS, 57, 100 + finger));
        report.push((codes::EV_ABS, 53, 10 * finger + 1));
        report.push((codes::EV_ABS, 54, 20 * finger + 1));
    }
    for (kind, code, value) in &report {
        let kind = if *kind == codes::EV_KEY { "key" } else { "abs" };
        // The guest is in slot 0 already, and its kernel passes on only what changes.
        if (kind, *code, *value) != ("abs", 47, 0) {
            expected.push(format!("{kind} {code} {value}"));
        }
    }
    expected.push("syn 0 0".to_owned());
    machine.mock.report(2, &report)?;
    // One event fewer comes than was sent: the next report fills the count.
    machine.mock.report(2, &[(codes::EV_KEY, 330, 0)])?;
    let events = listening.finish(SOON)?;
    assert_eq!(events.get(..expected.len()), Some(expected.as_slice()));

    let keyboard = machine.name(0)?;
    machine.mock.forget();
    machine.vm.command(&format!("led {keyboard} 1 on"))?;
    machine.mock.wait_led(0, 1, true, SOON)?;
    machine.vm.command(&format!("led {keyboard} 1 off"))?;
    machine.mock.wait_led(0, 1, false, SOON)?;
    machine.finish();
    Ok(())
}

#[test]
fn keyboard_survives_reload_reboot_and_reset() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[KEYBOARD])?;
    machine.types(0)?;
    machine.vm.command("reload-driver virtio_input")?;
    machine.types(0)?;
    machine.vm.reboot()?;
    machine.types(0)?;

    // The host sees the end of a key that is held over the reset; then the new guest has the keyboard.
    let name = machine.name(0)?;
    machine.mock.report(0, &[(codes::EV_KEY, 42, 1)])?;
    machine.mock.forget();
    machine.vm.reset()?;
    machine.mock.wait_grab(0, false, SOON)?;
    machine.mock.report(0, &[(codes::EV_KEY, 42, 0)])?;
    machine.mock.wait_grab(0, true, SOON)?;
    machine.types(0)?;
    assert!(machine.vm.command(&format!("key-state {name}"))?.is_empty());
    machine.finish();
    Ok(())
}

#[test]
fn pause_leaves_no_key_stuck() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[KEYBOARD])?;
    let name = machine.name(0)?;
    let listening = machine.vm.listen(1, &name)?;
    machine.mock.report(0, &[(codes::EV_KEY, 42, 1)])?;
    listening.finish(SOON)?;
    assert_eq!(machine.vm.command(&format!("key-state {name}"))?, ["42"]);

    machine.vm.qmp("stop", Value::Null)?;
    machine.mock.report(0, &[(codes::EV_KEY, 42, 0)])?;
    machine.vm.qmp("cont", Value::Null)?;
    let deadline = Instant::now() + SOON;
    while !machine.vm.command(&format!("key-state {name}"))?.is_empty() {
        ensure!(Instant::now() < deadline, "the key is stuck");
    }
    machine.types(0)?;
    machine.finish();
    Ok(())
}

/// A QEMU that loses a backend while no driver runs the device aborts.
#[test]
fn unplugged_device_ends_no_vm_without_a_driver() -> anyhow::Result<()> {
    let mut machine = Machine::start(&[KEYBOARD, MOUSE], &["-S"])?;
    machine.mock.unplug(1)?;
    machine.programs[1].wait_stderr("was unplugged")?;
    machine.vm.qmp("cont", Value::Null)?;
    machine.vm.wait_ready()?;
    // The guest's driver finds a device, and all others go on.
    let (keyboard, mouse) = (machine.name(0)?, machine.name(1)?);
    machine.vm.command(&format!("evdev-list {mouse}"))?;
    machine.types(0)?;
    // Between a reset and the driver.
    machine.vm.qmp("stop", Value::Null)?;
    machine.vm.qmp("system_reset", Value::Null)?;
    machine.mock.unplug(0)?;
    machine.programs[0].wait_stderr("was unplugged")?;
    machine.vm.qmp("cont", Value::Null)?;
    machine.vm.wait_ready()?;
    machine.vm.command(&format!("evdev-list {keyboard}"))?;
    machine.finish();
    Ok(())
}
