// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A GPU that consoles can connect to pays nothing while none looks: its worker makes the system calls and sends the
//! bytes of one without a display socket.

use super::*;
use crate::common::inject::threads;
use crate::common::tally::{Counted, Tally};
use frontend::gpu::{Create3d, Stream};

/// Frames that are counted.
const FRAMES: u32 = 10;
/// How often they are counted anew at most. A worker that a busy machine interrupts for long gives others their turn, and
/// goes on with one more event.
const MAX_ROUNDS: u32 = 20;

/// How a guest draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `TRANSFER_TO_HOST_2D`, `RESOURCE_FLUSH`.
    In2d,
    /// `SUBMIT_3D`, `RESOURCE_FLUSH`.
    #[cfg(feature = "virgl")]
    Virgl,
}

impl Kind {
    fn command(self) -> Command {
        let command = gpu_command(SocketForm::Connected(7));
        match self {
            Self::In2d => command,
            #[cfg(feature = "virgl")]
            Self::Virgl => command.arg("--virgl").env("LIBGL_ALWAYS_SOFTWARE", "1"),
        }
    }

    fn options(self) -> GpuOptions {
        match self {
            Self::In2d => GpuOptions::default(),
            #[cfg(feature = "virgl")]
            Self::Virgl => GpuOptions::virgl(),
        }
    }
}

/// A guest that draws frames.
struct Artist {
    gpu: Gpu,
    kind: Kind,
    backing: Backing,
    program: Program,
    frames: u32,
}

impl Artist {
    /// On a GPU that runs as `command`, with the display that `socket` leads to.
    fn new(kind: Kind, command: Command, socket: Option<UnixStream>) -> Self {
        let mut program = command.spawn().unwrap();
        let session = program.session().unwrap();
        let mut gpu = Gpu::start(session, &guest_memory(), socket, kind.options()).unwrap();
        match kind {
            Kind::In2d => ok(gpu.create_2d(1, XRGB, SIZE.0, SIZE.1)),
            #[cfg(feature = "virgl")]
            Kind::Virgl => {
                ok(gpu.create_context(1, "test"));
                ok(gpu.create_3d(1, Create3d::picture(SIZE.0, SIZE.1)));
                ok(gpu.context_attach(1, 1))
            }
        };
        let backing = Backing::new(gpu.memory(), SIZE.0 * SIZE.1 * 4, Pieces::Whole);
        ok(gpu.attach_backing(1, &backing.entries));
        show_on_0(&mut gpu, ALL);
        let mut artist = Self {
            gpu,
            kind,
            backing,
            program,
            frames: 0,
        };
        // What is made with the first frames only.
        (0..4).for_each(|_| artist.draw(|| ()));
        artist
    }

    /// Draws and flushes a frame that differs from the last one everywhere. Between the two commands the guest has a
    /// `pause`: a worker that is still busy with one finds the next without being woken.
    fn draw(&mut self, pause: impl FnOnce()) {
        self.frames += 1;
        let color: Color = match self.frames % 2 {
            0 => |_, _| [255, 0, 0],
            _ => |_, _| [0, 255, 0],
        };
        match self.kind {
            Kind::In2d => {
                self.backing.write(0, &picture(XRGB, SIZE, color));
                ok(self.gpu.transfer_to_host_2d(1, ALL, 0));
            }
            #[cfg(feature = "virgl")]
            Kind::Virgl => {
                let [r, g, b] = color(0, 0).map(|channel| f32::from(channel) / 255.0);
                let stream = Stream::default().draw_to(1, 1).clear([r, g, b]);
                ok(self.gpu.submit_3d(1, &stream));
            }
        }
        pause();
        ok(self.gpu.flush(1, ALL));
    }

    /// The worker of the program, from now on.
    fn worker(&self) -> Counted {
        let threads = threads(self.program.pid()).unwrap();
        let worker = threads.iter().find(|(_, name)| name == "vring_worker");
        Counted::new(worker.unwrap().0)
    }

    /// Asserts that the worker sends each frame once to so many displays, wakes up once for each command, and does
    /// nothing else.
    #[track_caller]
    fn assert_sends_to(&mut self, displays: u32, when: &str) {
        let mut expected = Tally {
            calls: [("epoll_wait", 2 * FRAMES), ("read", 2 * FRAMES)].into(),
            sent: u64::from(displays * FRAMES) * FRAME,
        };
        if displays > 0 {
            expected.calls.insert("sendmsg", displays * FRAMES);
        }
        let mut counted = (0..MAX_ROUNDS).map(|_| self.count());
        let other = counted.try_fold(Tally::default(), |_, tally| match tally == expected {
            true => Err(()),
            false => Ok(tally),
        });
        if let Ok(other) = other {
            panic!("{:?}, {when}: {other:?} instead of {expected:?}", self.kind);
        }
    }

    /// What the worker does for [`FRAMES`] frames.
    fn count(&mut self) -> Tally {
        let mut worker = self.worker();
        worker.begin().unwrap();
        for _ in 0..FRAMES {
            self.draw(|| drop(worker.report().unwrap()));
            worker.report().unwrap();
        }
        worker.report().unwrap()
    }

    /// A console that shows the last frame.
    fn console(&mut self) -> DisplayThread {
        let console = console(&mut self.program);
        wait_shows(&console, 0, SIZE, |_, _| [255, 0, 0]);
        console
    }
}

fn kinds() -> Vec<Kind> {
    vec![
        Kind::In2d,
        #[cfg(feature = "virgl")]
        Kind::Virgl,
    ]
}

/// Bytes of a frame's message.
const FRAME: u64 = 12 + 20 + (SIZE.0 * SIZE.1 * 4) as u64;

#[test]
fn console_that_nobody_uses_costs_nothing() {
    for kind in kinds() {
        for listens in [false, true] {
            let command = match listens {
                true => kind.command().listen("display"),
                false => kind.command(),
            };
            let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
            let mut guest = Artist::new(kind, command, Some(socket));
            guest.assert_sends_to(1, "without a console");
            if listens {
                let console = guest.console();
                guest.assert_sends_to(2, "with a console");
                console.finish().unwrap();
                guest.assert_sends_to(1, "after a console");
            }
            drop((guest, display));
        }
    }
}

/// Without a display of the VMM's either, nothing is sent.
#[test]
fn gpu_without_any_display_sends_nothing() {
    for kind in kinds() {
        let mut guest = Artist::new(kind, kind.command().listen("display"), None);
        guest.assert_sends_to(0, "without a console");
        let console = guest.console();
        guest.assert_sends_to(1, "with a console");
        console.finish().unwrap();
        guest.assert_sends_to(0, "after a console");
    }
}
