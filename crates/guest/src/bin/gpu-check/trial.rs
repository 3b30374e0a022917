// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program with OpenGL, a guest that draws on it, and a display: once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use frontend::gpu::{
    Create3d, DisplayOptions, DisplayThread, Gpu, GpuOptions, Rect, Request, Response,
    ResponseKind, Stream, Transfer3d,
};
use frontend::{Command, Memory, Program, SocketForm};

const SIZE: (u32, u32) = (1920, 1080);
const ALL: Rect = Rect::sized(SIZE.0, SIZE.1);
const CONTEXT: u32 = 1;
const PICTURE: u32 = 1;
/// An emulated processor loads Mesa and compiles shaders.
const SOON: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) program: PathBuf,
    /// Frames of which medians are taken.
    pub(super) frames: u16,
}

/// What draws.
#[derive(Clone, Debug)]
pub(super) enum Renderer {
    Node(PathBuf),
    Software,
}

impl Renderer {
    /// The program on it, with these further arguments. `tracer` starts it with the same arguments.
    pub(super) fn command(&self, program: &Path, tracer: Option<&Path>) -> Command {
        let command = Command::new(tracer.unwrap_or(program));
        let command = command.arg("--virgl");
        match self {
            Self::Node(node) => command.arg(format!("--render-node={}", node.display())),
            Self::Software => command.env("LIBGL_ALWAYS_SOFTWARE", "1"),
        }
    }
}

/// How a front-end is shown a screen.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    Dmabuf {
        format: String,
        modifier: Option<u64>,
        stride: u32,
    },
    Pixels,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dmabuf {
                format,
                modifier: Some(modifier),
                stride,
            } => write!(
                f,
                "dmabuf {format}, modifier {modifier:#x}, {stride} bytes a row"
            ),
            Self::Dmabuf { format, stride, .. } => {
                write!(f, "dmabuf {format}, {stride} bytes a row")
            }
            Self::Pixels => f.write_str("pixels"),
        }
    }
}

/// What a frame takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    /// From the guest's first command until the display has it: the median.
    pub(super) shown: Duration,
    /// Processor time of the program for a frame, and for reading it back: the mean.
    pub(super) cpu: Duration,
    /// Until the guest has its pixels: the median.
    pub(super) read_back: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) start: Duration,
    /// `STATUS=`, which names the renderer.
    pub(super) status: String,
    pub(super) shown: Shown,
    pub(super) is_drawn_right: bool,
    pub(super) frame: Frame,
    pub(super) ends_well: bool,
    /// Lines of its log that a user should know.
    pub(super) warnings: Vec<String>,
}

impl Trial {
    /// Runs the program, started by `tracer`.
    ///
    /// # Errors
    /// If it does not come so far, with what it said.
    pub(super) fn run(
        subject: &Subject,
        renderer: &Renderer,
        tracer: Option<&Path>,
    ) -> anyhow::Result<Self> {
        Self::of(subject, renderer.command(&subject.program, tracer), |_| {
            Ok(())
        })
    }

    /// As [`Trial::run`], of a command; `seen` is called while it runs.
    pub(super) fn of(
        subject: &Subject,
        command: Command,
        seen: impl FnOnce(&Program) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let begin = Instant::now();
        let mut program = command.socket(SocketForm::Path).notify().spawn()?;
        wait_serving(&mut program)
            .with_context(|| format!("it does not serve:\n{}", program.stderr()))?;
        let start = begin.elapsed();
        let mut trial = Self::serve(&mut program, subject.frames, start).with_context(|| {
            match program.try_exit() {
                Ok(Some(status)) => format!("it has ended, {status}:\n{}", program.stderr()),
                _ => format!("it says:\n{}", program.stderr()),
            }
        })?;
        seen(&program)?;
        trial.ends_well = program.wait_exit(SOON)?.success();
        let log = program.stderr();
        let is_warning = |line: &&str| {
            ["WARN", "ERROR", "warning", "error"]
                .iter()
                .any(|word| line.contains(word))
        };
        trial.warnings = log.lines().filter(is_warning).map(str::to_owned).collect();
        Ok(trial)
    }

    /// Draws, and ends the connection.
    fn serve(program: &mut Program, count: u16, start: Duration) -> anyhow::Result<Self> {
        let bytes = SIZE.0 * SIZE.1 * 4;
        let memory = Memory::with_size(16 << 20)?;
        let session = program.session()?;
        let options = DisplayOptions {
            dmabuf2: true,
            draw: false,
            ..DisplayOptions::with_modes(&[SIZE])
        };
        let (display, socket) = DisplayThread::start(options)?;
        let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::virgl())?;
        gpu.control.limit = SOON;
        let mut guest = Guest {
            backing: gpu.memory().alloc(bytes.into(), 4096)?,
            gpu,
            display,
            surfaces: 100,
        };
        guest.prepare(bytes)?;
        let shown = guest.draw([0.0, 1.0, 0.0])?;
        let mut is_drawn_right = guest.read_back(bytes)? == Some([0, 255, 0]);
        let mut frames = Vec::with_capacity(count.into());
        let used = program.cpu_time()?;
        for n in 0..count {
            let color = [f32::from(n % 2), 0.0, f32::from((n + 1) % 2)];
            let begin = Instant::now();
            guest.draw(color)?;
            let drawn = begin.elapsed();
            let begin = Instant::now();
            let read = guest.read_back(bytes)?;
            let read_back = begin.elapsed();
            is_drawn_right &= read == Some(color.map(|part| (part * 255.0) as u8));
            frames.push((drawn, read_back));
        }
        let used = program.cpu_time()?.saturating_sub(used);
        let median = |of: fn(&(Duration, Duration)) -> Duration| {
            let mut times: Vec<_> = frames.iter().map(of).collect();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        let statuses = program.notify()?.seen()?.to_vec();
        let status = statuses.iter().rev().find(|line| line.name == "STATUS");
        Ok(Self {
            start,
            status: status.map_or("unknown".into(), |line| line.value.clone()),
            shown,
            is_drawn_right,
            frame: Frame {
                shown: median(|frame| frame.0),
                cpu: used / u32::from(count),
                read_back: median(|frame| frame.1),
            },
            ends_well: false,
            warnings: Vec::new(),
        })
    }
}

fn wait_serving(program: &mut Program) -> anyhow::Result<()> {
    // Mesa and LLVM take their time to be loaded.
    let deadline = Instant::now() + 3 * SOON;
    while !program.stderr().contains("serving on") {
        if let Some(status) = program.try_exit()? {
            bail!("it has ended, {status}");
        }
        ensure!(Instant::now() < deadline, "its time is over");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn ok(response: frontend::Result<Response>) -> anyhow::Result<()> {
    let kind = response?.kind;
    ensure!(
        kind == ResponseKind::OkNodata,
        "the device answers {kind:?}"
    );
    Ok(())
}

/// A guest's driver with a picture and a context that draws to it, and a display.
struct Guest {
    gpu: Gpu,
    display: DisplayThread,
    backing: u64,
    surfaces: u32,
}

impl Guest {
    fn prepare(&mut self, bytes: u32) -> anyhow::Result<()> {
        let gpu = &mut self.gpu;
        ok(gpu.create_context(CONTEXT, "check"))?;
        ok(gpu.create_3d(PICTURE, Create3d::picture(SIZE.0, SIZE.1)))?;
        ok(gpu.context_attach(CONTEXT, PICTURE))?;
        ok(gpu.attach_backing(PICTURE, &[(self.backing, bytes)]))?;
        ok(gpu.set_scanout(0, PICTURE, ALL))
    }

    /// Draws and flushes a frame, and waits until the display has it.
    fn draw(&mut self, color: [f32; 3]) -> anyhow::Result<Shown> {
        self.display.lock().forget();
        self.surfaces += 1;
        let stream = Stream::default()
            .draw_to(self.surfaces, PICTURE)
            .clear(color);
        ok(self.gpu.submit_3d(CONTEXT, &stream))?;
        ok(self.gpu.flush(PICTURE, ALL))?;
        let deadline = Instant::now() + SOON;
        loop {
            let is_shown = self.display.wait("the display", |display| {
                let count = |request| display.of(request).count();
                let is_dmabuf = count(Request::DmabufUpdate) > 0;
                (is_dmabuf || count(Request::Update) > 0).then_some(is_dmabuf)
            });
            match is_shown {
                Ok(true) => return self.dmabuf(),
                Ok(false) => return Ok(Shown::Pixels),
                Err(e) if e.is_timeout() && Instant::now() < deadline => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn dmabuf(&self) -> anyhow::Result<Shown> {
        let display = self.display.lock();
        let scanout = display.dmabufs.first().and_then(Option::as_ref);
        let scanout = scanout.context("an update of no dmabuf")?;
        let [.., stride, _, fourcc] = scanout.fields;
        Ok(Shown::Dmabuf {
            format: String::from_utf8_lossy(&fourcc.to_le_bytes()).into_owned(),
            modifier: scanout.modifier,
            stride,
        })
    }

    /// The color of all pixels, as the guest reads them back; none if they are not of one.
    fn read_back(&mut self, bytes: u32) -> anyhow::Result<Option<[u8; 3]>> {
        ok(self
            .gpu
            .transfer_from_host_3d(CONTEXT, Transfer3d::of(PICTURE, ALL)))?;
        let mut pixels = vec![0; bytes as usize];
        self.gpu.memory().read(self.backing, &mut pixels)?;
        let mut pixels = pixels
            .chunks_exact(4)
            .map(|pixel| [pixel[2], pixel[1], pixel[0]]);
        let first = pixels.next();
        Ok(first.filter(|first| pixels.all(|pixel| pixel == *first)))
    }
}
