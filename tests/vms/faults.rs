// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real QEMU that is killed, or has an option that the devices do not support: the program ends with a
//! message, and the next VM starts on the same socket.

use std::time::Duration;

use crate::common::{assert_clean_exit, gpu_command, gpu_program};
use anyhow::Context as _;
use frontend::{Command, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn killed_qemu_ends_its_gpu_and_the_next_one_starts() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("gpu.sock");
    for is_killed in [true, false] {
        let option = format!("--socket-path={}", socket.display());
        let mut program = Command::new(gpu_program()).arg(option).spawn()?;
        program.wait_stderr("serving on")?;
        let mut vm = Vm::builder(&artifacts)
            .gpu_socket_with(&socket, "")
            .boot()
            .with_context(|| program.stderr())?;
        vm.command("testcard 800x600")?;
        vm.wait_screen(&Image::test_card(800, 600), SOON)?;
        if is_killed {
            let pid = i32::try_from(vm.pid()).ok().and_then(Pid::from_raw);
            kill_process(pid.context("a process id")?, Signal::KILL)?;
            assert_clean_exit(&mut program);
            drop(vm);
        } else {
            drop(vm);
            assert_clean_exit(&mut program);
        }
    }
    Ok(())
}

/// QEMU offers its guest what the option says, whatever the back-end offers, and passes on what the
/// guest takes.
#[test]
fn unsupported_option_of_qemu_is_named() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let mut program = gpu_command(SocketForm::Path).spawn()?;
    program.wait_stderr("serving on")?;
    let vm = Vm::builder(&artifacts)
        .gpu_socket_with(program.socket_path(), "packed=on")
        .start()?;
    // As soon as the guest has a driver.
    let status = program.wait_exit(Duration::from_secs(90))?;
    let said = program.stderr();
    assert!(!status.success(), "{status}, {said}");
    for word in ["VIRTIO_F_RING_PACKED", "packed=on"] {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    drop(vm);
    Ok(())
}
