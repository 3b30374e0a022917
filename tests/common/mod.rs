// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs under test, and helpers of several tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod asker;
pub(crate) mod evdev;
pub(crate) mod growth;
#[cfg(target_arch = "x86_64")]
pub(crate) mod inject;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tally;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use frontend::features::{ANY_LAYOUT, NOTIFY_ON_EMPTY};
use frontend::gpu::{
    Corner, Create3d, DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Response,
    ResponseKind, Stream,
};
use frontend::{Command, DEFAULT_LIMIT, Memory, Program, Session, SocketForm};
use vhost::vhost_user::message::FrontendReq;

/// For what takes no time but that of a machine that is busy with other things.
pub(crate) const QUICK: Duration = Duration::from_secs(30);

/// The gpu program: ours, or the one `VHOST_USER_GPU` names, to see what another one does.
pub(crate) fn gpu_program() -> PathBuf {
    let other = std::env::var_os("VHOST_USER_GPU");
    other.map_or_else(
        || env!("CARGO_BIN_EXE_vhost-user-gpu").into(),
        PathBuf::from,
    )
}

/// The input program, in the same way.
pub(crate) fn input_program() -> PathBuf {
    let other = std::env::var_os("VHOST_USER_INPUT");
    other.map_or_else(
        || env!("CARGO_BIN_EXE_vhost-user-input").into(),
        PathBuf::from,
    )
}

/// The console.
pub(crate) fn vnc_program() -> PathBuf {
    env!("CARGO_BIN_EXE_vhost-vnc").into()
}

/// The library's example. Cargo builds it with all targets, and tells no test where.
pub(crate) fn rng_program() -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_vhost-user-gpu")).parent();
    let example = programs.unwrap().join("examples/vhost-user-rng");
    assert!(
        example.exists(),
        "{} is missing: cargo build --example vhost-user-rng",
        example.display()
    );
    example
}

/// The gpu program, to be started in this way.
pub(crate) fn gpu_command(form: SocketForm) -> Command {
    Command::new(gpu_program()).socket(form)
}

/// Asserts that the program ended by itself, with status 0, soon.
pub(crate) fn assert_clean_exit(program: &mut Program) {
    assert_clean_exit_within(program, QUICK);
}

/// Asserts that the program ended by itself, with status 0, in this time.
pub(crate) fn assert_clean_exit_within(program: &mut Program, limit: Duration) {
    let status = program.wait_exit(limit).unwrap();
    assert!(status.success(), "{status}, stderr: {}", program.stderr());
    assert_eq!(program.stdout(), "", "nothing belongs on stdout");
}

/// Asserts that the program failed at its start, with a message on stderr that has all these words in it.
pub(crate) fn assert_early_failure(program: &mut Program, words: &[&str]) -> ExitStatus {
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert!(!status.success(), "status 0, stderr: {}", program.stderr());
    assert!(status.code().is_some(), "ended by a signal: {status}");
    let stderr = program.stderr();
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(program.stdout(), "", "nothing belongs on stdout");
    status
}

/// Makes the choices of a guest that takes all that QEMU lets it have.
pub(crate) fn assert_choices(session: &mut Session) {
    const LEGACY: u64 = NOTIFY_ON_EMPTY | ANY_LAYOUT;
    let offer = session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    session.set_features(offer.features | LEGACY).unwrap();
    for queue in 0..2 {
        session
            .set_vring_state(FrontendReq::SET_VRING_NUM, queue, 1024)
            .unwrap();
    }
    session.config(0, 16).unwrap();
}

/// A running gpu program, the guest's driver and the display.
pub(crate) struct GpuVm {
    pub gpu: Gpu,
    pub display: DisplayThread,
    pub program: Program,
}

impl GpuVm {
    pub(crate) fn start() -> Self {
        Self::with(DisplayOptions::default(), GpuOptions::default())
    }

    pub(crate) fn with_display(display: DisplayOptions) -> Self {
        Self::with(display, GpuOptions::default())
    }

    pub(crate) fn with(display: DisplayOptions, options: GpuOptions) -> Self {
        let program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
        Self::of(program, DisplayThread::start(display).unwrap(), options)
    }

    /// A guest that uses a program that runs already, and the display with its socket.
    pub(crate) fn of(
        program: Program,
        display: (DisplayThread, UnixStream),
        options: GpuOptions,
    ) -> Self {
        Self::in_memory(program, display, options, &guest_memory())
    }

    /// As [`GpuVm::of`], of a guest with this memory.
    pub(crate) fn in_memory(
        mut program: Program,
        (display, socket): (DisplayThread, UnixStream),
        options: GpuOptions,
        memory: &Memory,
    ) -> Self {
        let session = program.session().unwrap();
        let gpu = Gpu::start(session, memory, Some(socket), options).unwrap();
        Self {
            gpu,
            display,
            program,
        }
    }

    /// Creates a resource with a backing that is laid out like `pieces`.
    pub(crate) fn resource(
        &mut self,
        id: u32,
        format: Format,
        size: (u32, u32),
        pieces: Pieces,
    ) -> Backing {
        let (width, height) = size;
        ok(self.gpu.create_2d(id, format, width, height));
        let backing = Backing::new(self.gpu.memory(), width * height * 4, pieces);
        ok(self.gpu.attach_backing(id, &backing.entries));
        backing
    }

    /// Creates a resource of `format` that holds the test pattern, whole.
    pub(crate) fn painted(&mut self, id: u32, format: Format, size: (u32, u32)) -> Backing {
        let backing = self.resource(id, format, size, Pieces::Whole);
        backing.write(0, &picture(format, size, pattern));
        ok(self
            .gpu
            .transfer_to_host_2d(id, Rect::sized(size.0, size.1), 0));
        backing
    }

    /// Ends the front-end's side and asserts that the program ends well.
    pub(crate) fn finish(self) {
        self.finish_within(QUICK);
    }

    /// As [`GpuVm::finish`], for a program of which the kernel has much to take apart.
    pub(crate) fn finish_within(self, limit: Duration) {
        let Self {
            gpu,
            display,
            mut program,
        } = self;
        drop(gpu);
        assert_clean_exit_within(&mut program, limit);
        display.finish().unwrap();
    }
}

/// Two regions with a hole between them, as a PC with more than 3 GiB has.
pub(crate) fn guest_memory() -> Memory {
    Memory::new(&[(0x10_0000, 24 << 20), (1 << 32, 40 << 20)]).unwrap()
}

/// Asserts that a command was answered with OK_NODATA.
#[track_caller]
pub(crate) fn ok(response: frontend::Result<Response>) -> Response {
    answered(response, ResponseKind::OkNodata)
}

/// Asserts that a command was answered with this.
#[track_caller]
pub(crate) fn answered(response: frontend::Result<Response>, kind: ResponseKind) -> Response {
    let response = response.unwrap();
    assert_eq!(response.kind, kind);
    response
}

/// How a backing lies in the guest's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pieces {
    /// In one piece.
    Whole,
    /// In pages, the last first.
    Pages,
    /// In pieces of 1 to 40 odd bytes in a mixed order over both regions.
    Odd,
}

/// Guest memory behind a resource.
pub(crate) struct Backing {
    memory: Memory,
    pub entries: Vec<(u64, u32)>,
}

impl Backing {
    pub(crate) fn new(memory: &Memory, size: u32, pieces: Pieces) -> Self {
        let mut entries = Vec::new();
        match pieces {
            Pieces::Whole => entries.push((memory.alloc(size.into(), 4096).unwrap(), size)),
            Pieces::Pages => {
                let pages = size.div_ceil(4096);
                let start = memory.alloc(u64::from(pages) * 4096, 4096).unwrap();
                entries.extend(
                    (0..pages)
                        .rev()
                        .map(|n| (start + u64::from(n) * 4096, 4096)),
                );
            }
            Pieces::Odd => {
                let mut left = size;
                let mut n = 0_u32;
                while left > 0 {
                    let len = (n * 7 % 40 + 1).min(left);
                    let region = usize::from(n % 3 == 0);
                    // A byte between two pieces: they never lie one after the other.
                    let address = memory.alloc_in(region, u64::from(len) + 1, 1).unwrap();
                    entries.push((address, len));
                    left -= len;
                    n += 1;
                }
            }
        }
        Self {
            memory: memory.clone(),
            entries,
        }
    }

    /// All its bytes.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(address, len) in &self.entries {
            let start = bytes.len();
            bytes.resize(start + len as usize, 0);
            self.memory.read(address, &mut bytes[start..]).unwrap();
        }
        bytes
    }

    /// Writes `bytes` at `offset` of the whole.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let (mut skip, mut bytes) = (offset, bytes);
        for &(address, len) in &self.entries {
            let len = len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let n = (len - skip).min(bytes.len());
            self.memory
                .write(address + skip as u64, &bytes[..n])
                .unwrap();
            (skip, bytes) = (0, &bytes[n..]);
        }
        assert!(bytes.is_empty(), "the backing is too small");
    }
}

/// A backing of single pages, none of which lies behind the one before it. Each pixel has the number
/// of its page, so that a large picture is soon made and looked at.
pub(crate) struct ScatteredPages {
    pub entries: Vec<(u64, u32)>,
}

impl ScatteredPages {
    const PAGE: u32 = 4096;

    pub(crate) fn new(memory: &Memory, bytes: u32) -> Self {
        let pages = bytes.div_ceil(Self::PAGE);
        let start = memory
            .alloc(u64::from(pages * Self::PAGE), Self::PAGE.into())
            .unwrap();
        // From both ends to the middle.
        let page = |n: u32| {
            if n % 2 == 0 { n / 2 } else { pages - 1 - n / 2 }
        };
        let mut entries = Vec::new();
        for n in 0..pages {
            let address = start + u64::from(page(n) * Self::PAGE);
            let bytes = n.to_le_bytes().repeat(Self::PAGE as usize / 4);
            memory.write(address, &bytes).unwrap();
            entries.push((address, Self::PAGE));
        }
        Self { entries }
    }

    /// Asserts that scanout 0 shows a picture of this size in B8G8R8X8.
    #[track_caller]
    pub(crate) fn assert_shown(&self, display: &DisplayThread, (width, height): (u32, u32)) {
        let display = display.lock();
        let surface = display.surface(0).unwrap();
        assert_eq!((surface.width, surface.height), (width, height));
        for (n, page) in (0_u32..).zip(surface.pixels.chunks(Self::PAGE as usize)) {
            let mut pixels = page.chunks_exact(4).map(|p| [p[0], p[1], p[2], 0]);
            let found = pixels.clone().find(|p| u32::from_le_bytes(*p) != n);
            assert_eq!(found, None, "in page {n}");
            assert!(pixels.next().is_some());
        }
    }
}

/// A picture in which no two places near each other are the same.
pub(crate) fn pattern(x: u32, y: u32) -> [u8; 3] {
    [
        (x * 7 + y) as u8,
        (x + y * 5) as u8 ^ 0x55,
        ((x * 3) ^ (y * 11)) as u8,
    ]
}

/// Another one, different at each place.
pub(crate) fn negative(x: u32, y: u32) -> [u8; 3] {
    pattern(x, y).map(|c| !c)
}

/// The bytes of a picture in `format`.
pub(crate) fn picture(
    format: Format,
    (width, height): (u32, u32),
    color: impl Fn(u32, u32) -> [u8; 3],
) -> Vec<u8> {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixel = |(x, y)| {
        let [r, g, b] = color(x, y);
        format.pixel(r, g, b, 0xff)
    };
    places.flat_map(pixel).collect()
}

/// Asserts that a scanout shows `color` at each of its places.
#[track_caller]
pub(crate) fn assert_shows(
    display: &DisplayThread,
    scanout: u32,
    (width, height): (u32, u32),
    color: impl Fn(u32, u32) -> [u8; 3],
) {
    let display = display.lock();
    let surface = display.surface(scanout).unwrap();
    assert_eq!(
        (surface.width, surface.height),
        (width, height),
        "size of scanout {scanout}"
    );
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let (shown, wanted) = (surface.rgb(x, y).unwrap(), color(x, y));
        assert_eq!(shown, wanted, "scanout {scanout} at {x}, {y}");
    }
}

/// Has a guest make a picture of 64x64 and a context in which it can be drawn to: green, and in front of
/// it a red triangle, which takes shaders.
pub(crate) fn triangle(gpu: &mut Gpu) -> Stream {
    ok(gpu.create_context(1, "triangle"));
    ok(gpu.create_3d(1, Create3d::picture(64, 64)));
    ok(gpu.create_3d(2, Create3d::vertices(96)));
    ok(gpu.context_attach(1, 1));
    ok(gpu.context_attach(1, 2));
    let corner = |x, y| Corner {
        x,
        y,
        color: [1.0, 0.0, 0.0],
    };
    let corners = [corner(-3.0, -1.0), corner(3.0, -1.0), corner(0.0, 3.0)];
    Stream::default()
        .draw_to(1, 1)
        .clear([0.0, 1.0, 0.0])
        .triangle(10, 2, (64, 64), corners)
}
