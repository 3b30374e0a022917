// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Our own programs: the GPU, the keyboard and the VNC server, with a guest that our front-end plays.

use std::path::PathBuf;
use std::time::Duration;

use frontend::gpu::{CommandQueue, Gpu, GpuOptions};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Command, DEFAULT_LIMIT, Memory, Program, SocketForm};
use harness::paths;
use tempfile::TempDir;

use super::guest::Guest;

/// A machine with our devices, and no display but the console.
pub(super) struct OurGuest {
    gpu_program: Program,
    keyboard_program: Program,
    vnc: Program,
    gpu: Gpu,
    keyboard: Input,
    memory: Memory,
    folder: TempDir,
}

impl OurGuest {
    /// Starts it, with so much memory.
    ///
    /// # Errors
    /// If a program does not start.
    pub(super) fn start(size: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let option =
            |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
        let memory = Memory::with_size(size)?;
        let backend = |program: &str| -> anyhow::Result<Command> {
            Ok(Command::new(paths::program(program)?).socket(SocketForm::Connected(0)))
        };
        let mut gpu_program = backend("vhost-user-gpu")?
            .arg(option("display-socket", "display"))
            .spawn()?;
        let mut keyboard_program = backend("vhost-user-input")?
            .arg("--virtual=keyboard")
            .arg(option("events-socket", "events"))
            .spawn()?;
        let no_display = None::<std::os::unix::net::UnixStream>;
        let gpu = Gpu::start(
            gpu_program.session()?,
            &memory,
            no_display,
            GpuOptions::default(),
        )?;
        let keyboard = Input::start(
            keyboard_program.session()?,
            &memory,
            InputOptions::default(),
        )?;
        let vnc = Command::new(paths::program("vhost-vnc")?)
            .arg(option("socket-path", "vnc"))
            .arg(option("display", "display"))
            .arg(option("keyboard", "events"))
            .spawn()?;
        Ok(Self {
            gpu_program,
            keyboard_program,
            vnc,
            gpu,
            keyboard,
            memory,
            folder,
        })
    }
}

impl Guest for OurGuest {
    fn pids(&self) -> Vec<u32> {
        [&self.gpu_program, &self.vnc, &self.keyboard_program]
            .map(Program::pid)
            .to_vec()
    }

    fn vnc(&self) -> PathBuf {
        self.folder.path().join("vnc")
    }

    fn control(&mut self) -> &mut CommandQueue {
        &mut self.gpu.control
    }

    fn memory(&self) -> Memory {
        self.memory.clone()
    }

    fn kick(&mut self) -> anyhow::Result<()> {
        Ok(self.gpu.control.queue.submit()?)
    }

    fn wait_answer(&mut self) -> anyhow::Result<()> {
        // The device notifies, so the queue's own wait does.
        Ok(())
    }

    fn next_event(&mut self) -> anyhow::Result<Event> {
        Ok(self.keyboard.next_event(DEFAULT_LIMIT)?)
    }

    fn take_excess(&mut self) -> Duration {
        Duration::ZERO
    }

    fn said(&self) -> String {
        [&self.gpu_program, &self.keyboard_program, &self.vnc]
            .map(Program::stderr)
            .concat()
    }
}
