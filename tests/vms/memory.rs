// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest with more memory regions than one vhost-user table holds, in QEMU: its GPU
//! draws and its keyboard types while memory is plugged and unplugged.

use std::time::Duration;

use crate::common::{assert_clean_exit_within, gpu_command, input_program};
use anyhow::Context as _;
use frontend::{Command, Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::mock::{KEYBOARD, MockInput};
use harness::qemu::Vm;
use serde_json::json;

/// For what takes no time, but for a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Modules that are there from the start: with the board's own memory more than the 8 regions of a
/// table.
const MODULES: usize = 10;

struct Machine {
    vm: Vm,
    gpu: Program,
    keyboard: Program,
    mock: MockInput,
}

impl Machine {
    fn boot() -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let mock = MockInput::start(&[KEYBOARD])?;
        let gpu = gpu_command(SocketForm::Path).spawn()?;
        let keyboard = Command::new(input_program())
            .arg(format!("--evdev-path={}", mock.path(0)))
            .socket(SocketForm::Path);
        let environment = mock.environment().into_iter();
        let keyboard =
            environment.fold(keyboard, |command, (name, value)| command.env(name, value));
        let keyboard = keyboard.spawn()?;
        for program in [&gpu, &keyboard] {
            program.wait_stderr("serving on")?;
        }
        let mut words = vec!["-m".to_owned(), "384M,slots=16,maxmem=4G".to_owned()];
        for module in 0..MODULES {
            let backend = format!("memory-backend-memfd,id=module{module},size=128M,share=on");
            let device = format!("pc-dimm,memdev=module{module}");
            words.extend(["-object".to_owned(), backend, "-device".to_owned(), device]);
        }
        let vm = Vm::builder(&artifacts)
            .gpu_socket(gpu.socket_path())
            .input_socket(keyboard.socket_path())
            .arguments(&words)
            .boot()
            .with_context(|| format!("{}{}", gpu.stderr(), keyboard.stderr()))?;
        Ok(Self {
            vm,
            gpu,
            keyboard,
            mock,
        })
    }

    fn said(&self) -> String {
        format!("{}{}", self.gpu.stderr(), self.keyboard.stderr())
    }

    /// Has the guest draw and report keys, and `meanwhile` happen to the machine.
    fn works(
        &mut self,
        size: (u32, u32),
        meanwhile: impl FnOnce(&mut Vm) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (width, height) = size;
        let drawing = self.vm.start(&format!("testcard {width}x{height}"))?;
        meanwhile(&mut self.vm)?;
        drawing.finish(SOON).with_context(|| self.said())?;
        let card = Image::test_card(width, height);
        self.vm
            .wait_screen(&card, SOON)
            .with_context(|| self.said())?;
        let name = self.mock.description(0)?.name.clone();
        let listening = self.vm.listen(2, &name)?;
        self.mock.type_keys(0, &[30])?;
        let events = listening.finish(SOON).with_context(|| self.said())?;
        assert_eq!(events, ["key 30 1", "syn 0 0", "key 30 0", "syn 0 0"]);
        Ok(())
    }
}

#[test]
fn memory_hotplug_works_while_a_guest_draws_and_types() -> anyhow::Result<()> {
    let mut machine = Machine::boot()?;
    machine.works((640, 480), |_| Ok(()))?;
    for (module, size) in [(640, 480), (1024, 768), (800, 600)]
        .into_iter()
        .enumerate()
    {
        machine.works(size, |vm| {
            let (backend, id) = (format!("later{module}"), format!("dimm{module}"));
            let object = json!({
                "qom-type": "memory-backend-memfd", "id": backend, "size": 128 << 20, "share": true,
            });
            vm.qmp("object-add", object)?;
            let device = json!({"driver": "pc-dimm", "id": id, "memdev": backend});
            vm.qmp("device_add", device)?;
            Ok(())
        })?;
    }
    machine.works((640, 480), |vm| {
        vm.qmp("device_del", json!({"id": "dimm1"}))?;
        vm.wait_event("DEVICE_DELETED", SOON)?;
        Ok(())
    })?;
    // A new driver finds them as they are now.
    machine.vm.reset()?;
    machine.works((800, 600), |_| Ok(()))?;
    let Machine {
        vm, gpu, keyboard, ..
    } = machine;
    drop(vm);
    for mut program in [gpu, keyboard] {
        assert_clean_exit_within(&mut program, SOON);
    }
    Ok(())
}
