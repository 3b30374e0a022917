// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OpenGL of a guest in a window of QEMU: by our GPU, or by QEMU's own, which draws on the same libvirglrenderer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use frontend::gpu::{CommandQueue, Create3d, HEADER_SIZE, ResponseKind, Stream};
use frontend::{Command, Deadline, Program, Queue};
use harness::paths;
use harness::viewers::XServer;
use tempfile::TempDir;
use virtio_bindings::virtio_gpu as v;

use crate::gpu::Scenario;
use crate::program::{MeasuredProgram, Style};
use crate::qemu::{Doorbells, LOOK, Machine};
use crate::workload::{Batch, Sample, Workload};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const X_SERVER: &str = "/usr/bin/Xvfb";
/// Of Debian's packages qemu-system-modules-opengl and qemu-system-gui.
const MODULES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/qemu/hw-display-virtio-gpu-gl.so",
    "/usr/lib/x86_64-linux-gnu/qemu/ui-sdl.so",
];
/// Slot of bus 0.
const GPU: u8 = 0x10;
/// Entries of the queues, as QEMU has them with OpenGL.
const CONTROL_SIZE: u16 = 256;
const CURSOR_SIZE: u16 = 16;
const VIRGL: u64 = 1 << v::VIRTIO_GPU_F_VIRGL;
const MEMORY: u64 = 64 << 20;
const RESOURCE: u32 = 1;
const CONTEXT: u32 = 1;
/// From frame to frame. QEMU shows pixels at most every 30 ms, whatever it is sent; so it shows all frames of both.
const FRAME: Duration = Duration::from_millis(40);
/// How many times longer than other work it is done, as it waits most of the time.
pub(crate) const TIMES: u32 = 5;
/// Commands that are sent with one kick.
const AT_ONCE: u32 = 50;

/// Why this cannot be measured here; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    let mut files = [QEMU, X_SERVER, "/usr/bin/xdotool"]
        .into_iter()
        .chain(MODULES);
    let path = files.find(|path| !Path::new(path).exists())?;
    Some(format!(
        "OpenGL in a window of QEMU: {path} is missing, see make bench-opengl"
    ))
}

/// A guest that draws with OpenGL, its QEMU, and the X server with the window.
pub(crate) struct Window {
    machine: Machine,
    backend: Option<Program>,
    server: XServer<'static>,
    doorbells: Doorbells,
    control: CommandQueue,
    scenario: Scenario,
    taken: u16,
    round: u32,
    next: Instant,
    _cursor: Queue,
    _folder: TempDir,
}

impl Window {
    /// Starts all of it.
    ///
    /// # Errors
    /// If something does not start, or refuses.
    pub(crate) fn start(who: &MeasuredProgram, scenario: Scenario) -> anyhow::Result<Self> {
        let server = XServer::start()?;
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("gpu");
        let is_ours = who.style == Style::Backend;
        let backend = match is_ours {
            true => Some(start_backend(&socket)?),
            false => None,
        };
        // By software, whatever the host has.
        let qemu = Command::new(PathBuf::from(QEMU))
            .env("DISPLAY", server.display())
            .env("SDL_VIDEODRIVER", "x11")
            .env("LIBGL_ALWAYS_SOFTWARE", "1");
        let mut machine = Machine::start(qemu, MEMORY, |_| options(is_ours.then_some(&socket)))?;
        let memory = machine.memory();
        let control = Queue::new(&memory, CONTROL_SIZE, false)?;
        let cursor = Queue::new(&memory, CURSOR_SIZE, false)?;
        for queue in [&control, &cursor] {
            queue.suppress_notifications(true)?;
        }
        let mut window = Self {
            doorbells: machine.start_device(GPU, &[&control, &cursor], VIRGL)?,
            machine,
            backend,
            server,
            control: CommandQueue::new(control),
            scenario,
            taken: 0,
            round: 0,
            next: Instant::now(),
            _cursor: cursor,
            _folder: folder,
        };
        let prepared = window.prepare();
        prepared.map_err(|e| e.context(window.said()))?;
        Ok(window)
    }

    /// What a driver does before the work begins.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let (width, height) = self.scenario.screen();
        let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
        let mut name = vec![5, 0];
        name.extend([0; 16]);
        self.push(create, &name)?;
        let Create3d {
            target,
            format,
            bind,
            depth,
            array_size,
            flags,
            ..
        } = Create3d::picture(width, height);
        let picture = [
            RESOURCE, target, format, bind, width, height, depth, array_size, 0, 0, flags, 0,
        ];
        let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D;
        self.push(create, &picture)?;
        let attach = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE;
        self.push(attach, &[RESOURCE, 0])?;
        let scanout = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT;
        self.push(scanout, &[0, 0, width, height, 0, RESOURCE])?;
        self.push_stream(&Stream::default().draw_to(1, RESOURCE).clear([0.0; 3]))?;
        self.finish(5)?;
        self.flush()?;
        // There is no window manager to keep a window on the screen when it grows.
        let place = ["search", "--sync", "--name", "QEMU", "windowmove", "0", "0"];
        self.server.xdotool(&place).map(drop)
    }

    fn push(&mut self, command: u32, words: &[u32]) -> anyhow::Result<()> {
        let mut request = vec![0; HEADER_SIZE];
        request[..4].copy_from_slice(&command.to_le_bytes());
        request[16..20].copy_from_slice(&CONTEXT.to_le_bytes());
        request.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.control.push(&request, HEADER_SIZE as u32)?;
        Ok(())
    }

    fn push_stream(&mut self, stream: &Stream) -> anyhow::Result<()> {
        let submit = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D;
        let size = 4 * stream.0.len() as u32;
        self.push(submit, &[&[size, 0], &stream.0[..]].concat())
    }

    /// Kicks once for all that was pushed, and waits for as many answers.
    fn finish(&mut self, count: u32) -> anyhow::Result<()> {
        self.control.queue.publish()?;
        self.machine.kick(&self.doorbells, 0)?;
        for _ in 0..count {
            let deadline = Deadline::default();
            while self.control.queue.used_index()? == self.taken {
                if deadline.passed() {
                    bail!("the GPU does not answer");
                }
                std::thread::sleep(LOOK);
            }
            self.taken = self.taken.wrapping_add(1);
            let (_, answer) = self.control.next_response()?;
            ensure!(
                answer.kind == ResponseKind::OkNodata,
                "answered with {:?}",
                answer.kind
            );
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let (width, height) = self.scenario.screen();
        let flush = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        self.push(flush, &[0, 0, width, height, RESOURCE, 0])?;
        self.finish(1)
    }

    /// A frame, as [`crate::gpu`] draws it without a window.
    fn piece(&mut self) -> anyhow::Result<Sample> {
        self.round = self.round.wrapping_add(1);
        let count = match self.scenario {
            Scenario::Submits(count) => count,
            _ => 1,
        };
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        self.next = start + FRAME;
        for first in (0..count).step_by(AT_ONCE as usize) {
            let last = count.min(first + AT_ONCE);
            for n in first..last {
                self.push_stream(&Stream::default().clear(self.color(n)))?;
            }
            self.finish(last - first)?;
        }
        self.flush()?;
        Ok(Sample {
            latency: start.elapsed(),
            bytes: 0,
        })
    }

    /// The color of a frame's command.
    fn color(&self, command: u32) -> [f32; 3] {
        let shade = (self.round.wrapping_add(command) % 100) as f32 / 100.0;
        [shade, 0.5, 0.0]
    }

    /// Whether the window shows the last frame: as many pixels of its color as the screen has, or nearly.
    fn is_shown(&self) -> anyhow::Result<bool> {
        let last = match self.scenario {
            Scenario::Submits(count) => count - 1,
            _ => 0,
        };
        let wanted = self.color(last).map(|part| (part * 255.0).round() as i32);
        let is_wanted = |pixel: &&u32| {
            let parts = [16, 8, 0].map(|shift| (**pixel >> shift & 0xff) as i32);
            parts
                .iter()
                .zip(wanted)
                .all(|(is, it)| (is - it).abs() <= 1)
        };
        let (width, height) = self.scenario.screen();
        let shown = self
            .server
            .screen()?
            .pixels
            .iter()
            .filter(is_wanted)
            .count();
        Ok(shown >= (width * height) as usize * 9 / 10)
    }

    fn said(&self) -> String {
        let ours = self.backend.as_ref().map(Program::stderr);
        format!("{}{}", self.machine.said(), ours.unwrap_or_default())
    }
}

/// Our GPU, which waits for QEMU.
fn start_backend(socket: &Path) -> anyhow::Result<Program> {
    let program = Command::new(paths::program("vhost-user-gpu")?)
        .args(["--virgl", &format!("--socket-path={}", socket.display())])
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .spawn()?;
    Deadline::default().until("the socket of the GPU", || {
        Ok(socket.exists().then_some(()))
    })?;
    Ok(program)
}

/// The GPU and the window: of our program, which listens there, or QEMU's own.
fn options(socket: Option<&PathBuf>) -> Vec<OsString> {
    let words = match socket {
        Some(socket) => vec![
            "-chardev".into(),
            format!("socket,id=gpu,path={}", socket.display()),
            "-device".into(),
            format!("vhost-user-gpu-pci,chardev=gpu,addr={GPU:x}.0"),
        ],
        None => vec![
            "-device".into(),
            format!("virtio-gpu-gl-pci,addr={GPU:x}.0"),
        ],
    };
    // Our GPU sends pixels here, but QEMU wants a window with OpenGL for each GPU that has it.
    let window = ["-display", "sdl,gl=on"].map(Into::into);
    words.into_iter().chain(window).map(Into::into).collect()
}

impl Workload for Window {
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.machine.pid(), self.server.pid()];
        pids.extend(self.backend.as_ref().map(Program::pid));
        pids
    }

    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        let done = batch.run(|| self.piece());
        let samples = done.map_err(|e| e.context(self.said()))?;
        Deadline::default().until("the frame in the window", || {
            Ok(self.is_shown().unwrap_or(false).then_some(()))
        })?;
        Ok(samples)
    }

    fn take_excess(&mut self) -> Duration {
        self.machine.take_excess()
    }
}
