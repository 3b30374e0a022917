// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest in QEMU uses a keyboard and a tablet without hardware, on which a console types and points.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{assert_clean_exit, input_program};
use anyhow::{Context as _, ensure};
use frontend::{Command, Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use vhost_user_backends::vnc::input::{ConsoleInput, KeyboardLayout, ViewerId};

const SOON: Duration = Duration::from_secs(60);
const KEYBOARD: &str = "vhost-user keyboard";
const TABLET: &str = "vhost-user tablet";
const VIEWER: ViewerId = ViewerId(1);
/// XT keycodes.
const KEYCODE_A: u32 = 0x1e;
const KEYCODE_CAPS_LOCK: u32 = 0x3a;
const SCREEN: (u16, u16) = (1280, 800);

struct Machine {
    vm: Vm,
    programs: Vec<Program>,
    console: ConsoleInput,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn boot() -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let folder = tempfile::tempdir()?;
        let mut builder = Vm::builder(&artifacts);
        let udevadm = Path::new("/usr/bin/udevadm");
        if udevadm.exists() {
            builder = builder.program(udevadm);
        }
        let mut programs = Vec::new();
        for device in ["keyboard", "tablet"] {
            let events = folder.path().join(device);
            let program = Command::new(input_program())
                .arg(format!("--virtual={device}"))
                .arg(format!("--events-socket={}", events.display()))
                .socket(SocketForm::Path)
                .spawn()?;
            program.wait_stderr("serving on")?;
            builder = builder.input_socket(program.socket_path());
            programs.push(program);
        }
        let [keyboard, tablet] = ["keyboard", "tablet"].map(|name| Some(folder.path().join(name)));
        let mut console = ConsoleInput::new(keyboard, tablet, KeyboardLayout::us())?;
        console.viewer_joined(VIEWER);
        let mut vm = builder.start()?;
        vm.wait_ready()?;
        Ok(Self {
            vm,
            programs,
            console,
            _folder: folder,
        })
    }

    /// What the guest's device reports while the console does something.
    fn reported(
        &mut self,
        device: &str,
        count: usize,
        act: impl FnOnce(&mut ConsoleInput),
    ) -> anyhow::Result<Vec<String>> {
        let listening = self.vm.listen(count, device)?;
        act(&mut self.console);
        let said = || {
            let stderr = self.programs.iter().map(Program::stderr);
            stderr.collect::<String>()
        };
        listening.finish(SOON).with_context(said)
    }

    fn wait_leds(&mut self, bits: u8) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        while self.console.leds().rfb_bits() != bits {
            ensure!(Instant::now() < deadline, "{:?}", self.console.leds());
            std::thread::sleep(Duration::from_millis(5));
            self.console.handle_ready()?;
        }
        Ok(())
    }

    fn finish(self) {
        drop(self.vm);
        for mut program in self.programs {
            assert_clean_exit(&mut program);
        }
    }
}

#[test]
fn guest_gets_keys_pointer_and_wheel_of_a_console_and_sets_its_leds() -> anyhow::Result<()> {
    let mut machine = Machine::boot()?;

    // By keycode, and by keysym without Shift.
    let events = machine.reported(KEYBOARD, 6, |console| {
        console.extended_key(VIEWER, 0, KEYCODE_A, true);
        console.extended_key(VIEWER, 0, KEYCODE_A, false);
        console.key(VIEWER, u32::from('B'), true);
        console.key(VIEWER, u32::from('B'), false);
    })?;
    let keys = [
        "key 30 1", "key 30 0", "key 42 1", "key 48 1", "key 42 0", "key 48 0",
    ];
    let expected: Vec<&str> = keys.into_iter().flat_map(|key| [key, "syn 0 0"]).collect();
    assert_eq!(events, expected);

    let events = machine.reported(TABLET, 7, |console| {
        console.pointer(VIEWER, 0, (1279, 0), SCREEN);
        console.pointer(VIEWER, 1, (0, 799), SCREEN);
        console.pointer(VIEWER, 0b1_0000, (0, 799), SCREEN);
    })?;
    let expected = [
        // The guest's kernel does not report the 0 that it had from the start.
        "abs 0 32767",
        "syn 0 0",
        "abs 0 0",
        "abs 1 32767",
        "key 272 1",
        "syn 0 0",
        "key 272 0",
        "rel 8 -1",
        "rel 11 -120",
        "syn 0 0",
    ];
    assert_eq!(events, expected);

    machine.vm.command(&format!("led {KEYBOARD} 0 on"))?;
    machine.wait_leds(0b010)?;
    machine.vm.command(&format!("led {KEYBOARD} 0 off"))?;
    machine.wait_leds(0)?;

    // A console that vanishes leaves nothing pressed.
    machine.reported(KEYBOARD, 1, |console| {
        console.extended_key(VIEWER, 0, KEYCODE_A, true);
    })?;
    assert_eq!(
        machine.vm.command(&format!("key-state {KEYBOARD}"))?,
        ["30"]
    );
    machine.console = ConsoleInput::new(None, None, KeyboardLayout::us())?;
    // The guest repeats the key until it is released.
    let deadline = Instant::now() + SOON;
    while !machine
        .vm
        .command(&format!("key-state {KEYBOARD}"))?
        .is_empty()
    {
        ensure!(Instant::now() < deadline, "the key is stuck");
    }
    machine.finish();
    Ok(())
}

/// As udev classifies them; and the kernel's own keyboard driver, which lights the LEDs.
#[test]
fn guest_takes_the_devices_for_a_keyboard_and_a_mouse() -> anyhow::Result<()> {
    let mut machine = Machine::boot()?;
    let devices = machine.vm.command("shell cat /proc/bus/input/devices")?;
    let handlers = |name: &str| {
        let mut lines = devices.iter().skip_while(|line| !line.contains(name));
        let found = lines.find(|line| line.contains("Handlers="));
        found.cloned().unwrap_or_default()
    };
    assert!(handlers(KEYBOARD).contains("kbd"), "{devices:?}");

    if Path::new("/usr/bin/udevadm").exists() {
        let udev = |machine: &mut Machine, name: &str| {
            let script = format!(
                "shell for d in /sys/class/input/event* ; do if grep -q '{name}' $d/device/name ; then \
                 udevadm test-builtin input_id $d 2>/dev/null ; fi ; done"
            );
            machine.vm.command(&script)
        };
        let keyboard = udev(&mut machine, KEYBOARD)?;
        assert!(
            keyboard.iter().any(|line| line == "ID_INPUT_KEYBOARD=1"),
            "{keyboard:?}"
        );
        let tablet = udev(&mut machine, TABLET)?;
        assert!(
            tablet.iter().any(|line| line == "ID_INPUT_MOUSE=1"),
            "{tablet:?}"
        );
        for pen in [
            "ID_INPUT_TABLET=1",
            "ID_INPUT_TOUCHSCREEN=1",
            "ID_INPUT_JOYSTICK=1",
        ] {
            assert!(!tablet.iter().any(|line| line == pen), "{tablet:?}");
        }
    }

    // Caps Lock, with the kernel's own keyboard driver: the LED comes back to the viewers.
    for (down, bits) in [(true, 0b100), (false, 0b100), (true, 0), (false, 0)] {
        machine
            .console
            .extended_key(VIEWER, 0, KEYCODE_CAPS_LOCK, down);
        machine.wait_leds(bits)?;
    }
    machine.finish();
    Ok(())
}
