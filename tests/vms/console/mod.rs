// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest whose console is looked at and used: its GPU, keyboard and tablet are ours, and vhost-vnc
//! shows them to real viewers.

mod faults;
mod generic;
mod viewers;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::{Command, Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::viewers::Tour;
use tempfile::TempDir;

use crate::common::{assert_clean_exit, gpu_command, input_program, vnc_program};

/// For what takes no time, but for a busy machine.
const SOON: Duration = Duration::from_secs(60);
const VNC_FD: u8 = 3;

/// The four programs of a VM's console.
struct Console {
    gpu: Program,
    keyboard: Program,
    tablet: Program,
    vnc: Program,
    /// Stays open when the server ends, as systemd's does.
    listener: UnixListener,
    folder: TempDir,
}

impl Console {
    /// With further options of the GPU.
    fn start(options: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let gpu = gpu_command(SocketForm::Path)
            .arg(format!("--display-socket={}", path("display")))
            .args(options)
            .spawn()?;
        let device = |kind: &str| {
            Command::new(input_program())
                .arg(format!("--virtual={kind}"))
                .arg(format!("--events-socket={}", path(kind)))
                .socket(SocketForm::Path)
                .spawn()
        };
        let (keyboard, tablet) = (device("keyboard")?, device("tablet")?);
        for program in [&gpu, &keyboard, &tablet] {
            program.wait_stderr("serving on")?;
        }
        let listener = UnixListener::bind(folder.path().join("vnc"))?;
        let vnc = start_server(&listener, &folder)?;
        Ok(Self {
            gpu,
            keyboard,
            tablet,
            vnc,
            listener,
            folder,
        })
    }

    fn start_server_again(&mut self) -> anyhow::Result<()> {
        self.vnc = start_server(&self.listener, &self.folder)?;
        Ok(())
    }

    /// Where it speaks RFB.
    fn socket(&self) -> PathBuf {
        self.folder.path().join("vnc")
    }

    /// Boots a guest on the devices, with QEMU's own front-end for each.
    fn boot(&self, artifacts: &Artifacts) -> anyhow::Result<Vm> {
        let vm = Vm::builder(artifacts)
            .gpu_socket(self.gpu.socket_path())
            .input_socket(self.keyboard.socket_path())
            .input_socket(self.tablet.socket_path())
            .boot();
        vm.with_context(|| self.said())
    }

    /// A guest that is looked at.
    fn tour<'a>(&self, vm: &'a mut Vm) -> anyhow::Result<Tour<'a>> {
        Tour::of(vm, &self.socket(), |_| true)
    }

    /// What the programs said.
    fn said(&self) -> String {
        let programs = [&self.gpu, &self.keyboard, &self.tablet, &self.vnc];
        programs.map(Program::stderr).concat()
    }

    /// After the VM: the backends have to end by themselves, and the server not before it is told to.
    fn finish(mut self) -> anyhow::Result<()> {
        for program in [&mut self.gpu, &mut self.keyboard, &mut self.tablet] {
            assert_clean_exit(program);
        }
        let ended = self.vnc.try_exit()?;
        ensure!(
            ended.is_none(),
            "vhost-vnc ended: {ended:?}: {}",
            self.vnc.stderr()
        );
        Ok(())
    }
}

fn start_server(listener: &UnixListener, folder: &TempDir) -> anyhow::Result<Program> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = Command::new(vnc_program())
        .arg(format!("--fd={VNC_FD}"))
        .arg(format!("--display={}", path("display")))
        .arg(format!("--keyboard={}", path("keyboard")))
        .arg(format!("--tablet={}", path("tablet")))
        .arg("--name=vm")
        .pass(VNC_FD, listener.try_clone()?)
        .spawn()?;
    Ok(program)
}
