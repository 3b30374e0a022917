// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VMM's display and a console's viewers while the GPU's process is killed and replaced.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request};
use frontend::manager::{Service, ServiceOptions};
use frontend::{Command, Memory, SocketForm};
use rfb::Encoding;
use rfb::client::Client;

use crate::common::*;

const FULL_HD: (u32, u32) = (1920, 1080);
const HEADER: usize = 12;
const REPLY: u32 = 4;
/// How often a test looks whether something came.
const TICK: Duration = Duration::from_millis(5);

fn service() -> Service {
    let options = ServiceOptions::new(gpu_program()).sockets(&["vhost-user", "display"]);
    options.start().unwrap()
}

/// A guest of the service, with the VMM's display on `socket`.
fn guest(service: &Service, socket: UnixStream) -> Gpu {
    let memory = Memory::with_size(32 << 20).unwrap();
    let session = service.session().unwrap();
    Gpu::start(session, &memory, Some(socket), GpuOptions::default()).unwrap()
}

/// A picture of the guest's, in its memory, on its screen.
struct Screen {
    backing: Backing,
    pixels: Vec<u8>,
    whole: Rect,
}

impl Screen {
    fn show(gpu: &mut Gpu, (width, height): (u32, u32)) -> Self {
        ok(gpu.create_2d(1, Format::B8G8R8X8, width, height));
        let backing = Backing::new(gpu.memory(), width * height * 4, Pieces::Whole);
        ok(gpu.attach_backing(1, &backing.entries));
        let whole = Rect::sized(width, height);
        ok(gpu.set_scanout(0, 1, whole));
        Self {
            backing,
            pixels: vec![0; (width * height * 4) as usize],
            whole,
        }
    }

    /// Draws picture `number` in a part of the screen.
    fn paint(&mut self, gpu: &mut Gpu, number: u32, part: Rect) {
        let stride = self.whole.width * 4;
        for y in part.y..part.y + part.height {
            let start = (y * stride + part.x * 4) as usize;
            let row = &mut self.pixels[start..start + part.width as usize * 4];
            for (pixel, x) in row.chunks_exact_mut(4).zip(0_u32..) {
                let color = (y * 8192 + x).wrapping_mul(0x9e37_79b1);
                let color = color ^ number.wrapping_mul(0x85eb_ca6b);
                pixel.copy_from_slice(&color.to_le_bytes());
            }
        }
        self.backing.write(0, &self.pixels);
        let offset = part.y * stride + part.x * 4;
        ok(gpu.transfer_to_host_2d(1, part, offset.into()));
    }

    fn is_shown_by(&self, display: &frontend::gpu::Display) -> Option<()> {
        let surface = display.surface(0).ok()?;
        same_colours(&surface.pixels, &self.pixels).then_some(())
    }
}

fn same_colours(a: &[u8], b: &[u8]) -> bool {
    let mut pairs = a.chunks_exact(4).zip(b.chunks_exact(4));
    a.len() == b.len() && pairs.all(|(a, b)| a[..3] == b[..3])
}

/// A display that reads slowly: its socket has room for a small part of a frame, and the process is killed while the rest
/// waits.
#[test]
fn frame_that_is_cut_is_sent_to_its_end() {
    let mut service = service();
    let options = DisplayOptions {
        buffer: Some(64 << 10),
        ..DisplayOptions::with_modes(&[FULL_HD])
    };
    let (display, socket) = DisplayThread::start(options).unwrap();
    let mut gpu = guest(&service, socket);
    let mut screen = Screen::show(&mut gpu, FULL_HD);
    let whole = screen.whole;
    for round in 0..12 {
        // Stuck in the message, or reading somewhere in it.
        if round % 3 == 0 {
            display.pause();
        }
        screen.paint(&mut gpu, round, whole);
        ok(gpu.flush(1, whole));
        service.kill_and_start().unwrap();
        display.resume();
        // What the guest draws next comes, too.
        let part = Rect::new(100, 200, 300, 400);
        screen.paint(&mut gpu, round + 1000, part);
        ok(gpu.flush(1, part));
        let shown = display.wait("the guest's picture", |display| screen.is_shown_by(display));
        shown.unwrap_or_else(|e| panic!("round {round}: {e}; log:\n{}", service.log()));
    }
    // The size is told once: another time would clear the screen.
    for request in [Request::Scanout, Request::SetProtocolFeatures] {
        let count = display.lock().of(request).count();
        assert_eq!(count, 1, "{request:?}; log:\n{}", service.log());
    }
    drop(gpu);
    assert!(service.wait_exit().unwrap().success());
    display.finish().unwrap();
}

/// The display's end of its socket, by hand.
struct SlowDisplay(UnixStream);

impl SlowDisplay {
    fn receive(&mut self) -> u32 {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).unwrap();
        let word = |n: usize| u32::from_ne_bytes(header[4 * n..][..4].try_into().unwrap());
        assert_eq!(word(1), 0);
        let mut payload = vec![0; word(2) as usize];
        self.0.read_exact(&mut payload).unwrap();
        word(0)
    }

    fn has_more(&mut self, limit: Duration) -> bool {
        let deadline = frontend::Deadline::after(limit);
        deadline
            .ready(&self.0, rustix::event::PollFlags::IN)
            .unwrap()
    }

    fn reply(&mut self, request: Request, payload: &[u8]) {
        let words = [request as u32, REPLY, payload.len() as u32];
        let header = words.map(u32::to_ne_bytes).concat();
        self.0.write_all(&[&header, payload].concat()).unwrap();
    }

    fn reply_mode(&mut self, width: u32) {
        let mut payload = vec![0; 24 + 16 * 24];
        payload[..4].copy_from_slice(&0x1101_u32.to_le_bytes());
        let mode = [0, 0, width, 480, 1, 0].map(u32::to_le_bytes).concat();
        payload[24..48].copy_from_slice(&mode);
        self.reply(Request::GetDisplayInfo, &payload);
    }
}

/// A driver that asks for the modes waits while the process is replaced: before the display's answer, or behind it.
#[test]
fn query_is_answered_over_a_restart() {
    let mut service = service();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(QUICK)).unwrap();
    let mut display = SlowDisplay(ours);
    let mut gpu = guest(&service, theirs);
    assert_eq!(display.receive(), Request::GetProtocolFeatures as u32);
    display.reply(Request::GetProtocolFeatures, &0_u64.to_ne_bytes());
    assert_eq!(display.receive(), Request::SetProtocolFeatures as u32);
    for round in 0..10 {
        let width = 640 + round;
        let modes = std::thread::scope(|scope| {
            let asking = scope.spawn(|| gpu.get_display_info());
            assert_eq!(display.receive(), Request::GetDisplayInfo as u32);
            if round % 2 == 0 {
                service.kill_and_start().unwrap();
                display.reply_mode(width);
            } else {
                display.reply_mode(width);
                service.kill_and_start().unwrap();
            }
            // A successor asks again if its predecessor had the reply and had not passed it on.
            while !asking.is_finished() {
                if display.has_more(TICK) {
                    assert_eq!(display.receive(), Request::GetDisplayInfo as u32);
                    assert_eq!(round % 2, 1, "round {round}: asked twice");
                    display.reply_mode(width);
                }
            }
            asking.join().unwrap()
        });
        let modes = modes.unwrap_or_else(|e| panic!("round {round}: {e}; log:\n{}", service.log()));
        assert_eq!(modes[0].rect.width, width, "round {round}");
        assert!(!display.has_more(Duration::ZERO), "round {round}");
    }
    drop(gpu);
    assert!(service.wait_exit().unwrap().success());
}

/// The viewers of a console keep the picture, and see what the guest draws next soon after.
#[test]
fn viewers_do_not_notice_a_restart() {
    let mut service = service();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut gpu = guest(&service, socket);
    let mut screen = Screen::show(&mut gpu, FULL_HD);
    let whole = screen.whole;
    screen.paint(&mut gpu, 1, whole);
    ok(gpu.flush(1, whole));

    let option = format!("--display={}", service.path("display").display());
    let console = Command::new(vnc_program()).args([&option, "--name=vm1"]);
    let mut console = console.socket(SocketForm::Path).spawn().unwrap();
    let mut viewer = Client::connect(console.connect().unwrap(), QUICK).unwrap();
    let encodings = [Encoding::RAW, Encoding::LAST_RECT, Encoding::DESKTOP_NAME];
    viewer.set_encodings(&encodings).unwrap();
    let shows = |screen: &Screen, viewer: &Client<UnixStream>| {
        same_colours(viewer.frame().bytes(), &screen.pixels)
    };
    viewer.wait_until(|viewer| shows(&screen, viewer)).unwrap();

    let mut longest = Duration::ZERO;
    for round in 0..5 {
        let killed = Instant::now();
        service.kill_and_start().unwrap();
        let part = Rect::new(64 * round, 100, 32, 32);
        screen.paint(&mut gpu, round + 2, part);
        ok(gpu.flush(1, part));
        // The next that the viewer is sent is what changed, and not a text, or all again.
        let mut changed = 0;
        while !shows(&screen, &viewer) {
            viewer.request(true, viewer.frame().rect()).unwrap();
            let update = viewer.wait_for_update();
            let update = update.unwrap_or_else(|e| panic!("{e}; log:\n{}", service.log()));
            let sent = update.pixels.iter().map(|(rect, _)| rect.area());
            changed += sent.sum::<usize>();
            assert_eq!(viewer.name(), "vm1");
        }
        longest = longest.max(killed.elapsed());
        assert!(changed <= 64 * 64, "round {round}: {changed} pixels");
    }
    println!("shown {longest:?} after the kill at most");
    let shown = display.wait("the same at the VMM", |display| screen.is_shown_by(display));
    shown.unwrap();
    drop(gpu);
    drop(viewer);
    display.finish().unwrap();
}
