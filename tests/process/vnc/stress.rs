// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that draws at random, viewers of all kinds that come and go, and a console that is killed: in the end
//! everybody sees what the guest drew.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use frontend::{Command, Deadline, SocketForm};
use rfb::client::Client;
use rfb::{Encoding, PixelFormat};
use rustix::process::Signal;

use super::{Viewer, rgb, several::rounded};
use crate::common::*;

/// Sizes of the resources: odd ones, and some beyond a tile of ZRLE.
const SIZES: [(u32, u32); 3] = [(200, 150), (65, 63), (17, 129)];
const XRGB: Format = Format::B8G8R8X8;

/// Numbers that look random, the same in each run (Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit.max(1)
    }

    fn rect(&mut self, (width, height): (u32, u32)) -> Rect {
        let (x, y) = (self.below(width), self.below(height));
        Rect::new(x, y, 1 + self.below(width - x), 1 + self.below(height - y))
    }
}

/// A resource of the guest, and the pixels that its last transfers left in it.
struct Resource {
    id: u32,
    size: (u32, u32),
    backing: Backing,
    pixels: Vec<u8>,
}

impl Resource {
    /// Draws one color or noise into a part.
    fn draw(&mut self, gpu: &mut Gpu, dice: &mut Dice) {
        let part = dice.rect(self.size);
        let is_noise = dice.below(3) == 0;
        let color = dice.below(u32::MAX);
        for y in part.y..part.y + part.height {
            for x in part.x..part.x + part.width {
                let at = ((y * self.size.0 + x) * 4) as usize;
                let color = if is_noise {
                    dice.below(u32::MAX)
                } else {
                    color
                };
                self.pixels[at..at + 4].copy_from_slice(&color.to_le_bytes());
            }
        }
        self.show(gpu, part);
    }

    /// Transfers and flushes a part.
    fn show(&self, gpu: &mut Gpu, part: Rect) {
        let start = (part.y * self.size.0 * 4) as usize;
        let end = ((part.y + part.height) * self.size.0 * 4) as usize;
        self.backing.write(start, &self.pixels[start..end]);
        let offset = u64::from((part.y * self.size.0 + part.x) * 4);
        ok(gpu.transfer_to_host_2d(self.id, part, offset));
        ok(gpu.flush(self.id, part));
    }

    /// What a scanout of `rect` shows.
    fn part(&self, rect: Rect) -> Vec<u8> {
        let row = |y: u32| {
            let at = ((y * self.size.0 + rect.x) * 4) as usize;
            &self.pixels[at..at + rect.width as usize * 4]
        };
        (rect.y..rect.y + rect.height)
            .flat_map(row)
            .copied()
            .collect()
    }
}

/// A viewer, and the format of its pixels.
struct Looking {
    viewer: Viewer,
    format: PixelFormat,
}

impl Looking {
    fn start(stream: UnixStream, dice: &mut Dice) -> Self {
        let formats = [
            PixelFormat::XRGB8888,
            PixelFormat::RGB565,
            PixelFormat::BGR233,
        ];
        let format = formats[dice.below(3) as usize];
        let mut viewer = Client::connect(stream, QUICK).unwrap();
        viewer.set_format(format).unwrap();
        let pixels = [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT];
        let sizes = [Encoding::DESKTOP_SIZE, Encoding::EXTENDED_DESKTOP_SIZE];
        let encodings = [
            pixels[dice.below(3) as usize],
            sizes[dice.below(2) as usize],
            Encoding::LAST_RECT,
            Encoding::CURSOR,
        ];
        viewer.set_encodings(&encodings).unwrap();
        Self { viewer, format }
    }

    /// Sees `wanted`, which the guest draws last.
    fn sees(&self, wanted: &Wanted) -> bool {
        let frame = self.viewer.frame();
        let size = (u32::from(frame.width()), u32::from(frame.height()));
        size == wanted.size
            && rgb(frame.bytes()) == rgb(&rounded(&wanted.pixels, self.format.channels()))
    }

    /// Follows the guest until it sees what is `wanted`. Sometimes it asks for something and leaves, and another one
    /// comes.
    fn follow(&mut self, wanted: &Mutex<Option<Wanted>>, socket: &Path, dice: &mut Dice) {
        let deadline = Deadline::after(QUICK);
        loop {
            let whole = self.viewer.frame().rect();
            self.viewer.request(dice.below(10) > 0, whole).unwrap();
            if dice.below(20) == 0 {
                *self = Self::start(UnixStream::connect(socket).unwrap(), dice);
                continue;
            }
            let came = self.viewer.wait_for_update();
            let size = {
                let wanted = wanted.lock().unwrap();
                if wanted.as_ref().is_some_and(|wanted| self.sees(wanted)) {
                    return;
                }
                wanted.as_ref().map(|wanted| wanted.size)
            };
            if came.is_err() || deadline.passed() {
                let seen = self.viewer.frame().rect();
                panic!("{came:?}: {seen:?} is seen, another picture of {size:?} is wanted");
            }
        }
    }
}

/// What the screen shows in the end.
struct Wanted {
    size: (u32, u32),
    pixels: Vec<u8>,
}

/// Has the guest do things. Returns which resource is shown in the end, and which part of it.
fn draw(vm: &mut GpuVm, resources: &mut [Resource], dice: &mut Dice) -> (usize, Rect) {
    let mut shown = dice.below(3) as usize;
    let mut rect = dice.rect(SIZES[shown]);
    ok(vm.gpu.set_scanout(0, resources[shown].id, rect));
    for _ in 0..dice.below(60) {
        match dice.below(16) {
            0 => {
                shown = dice.below(3) as usize;
                rect = dice.rect(SIZES[shown]);
                ok(vm.gpu.set_scanout(0, resources[shown].id, rect));
            }
            1 => {
                ok(vm.gpu.set_scanout(0, 0, Rect::default()));
                ok(vm.gpu.set_scanout(0, resources[shown].id, rect));
            }
            2 => {
                let place = (dice.below(250), dice.below(200));
                let hot = (dice.below(64), dice.below(64));
                vm.gpu.update_cursor(0, place, 9, hot).unwrap();
            }
            3 => {
                let place = (dice.below(250), dice.below(200));
                vm.gpu.move_cursor(0, place, 9).unwrap();
            }
            _ => {
                let at = dice.below(3) as usize;
                resources[at].draw(&mut vm.gpu, dice);
            }
        }
    }
    // The first flush after a change of the scanout shows all of it.
    let resource = &resources[shown];
    let (width, height) = resource.size;
    ok(vm.gpu.flush(resource.id, Rect::sized(width, height)));
    (shown, rect)
}

#[test]
fn random_viewers_see_what_a_random_guest_drew_however_often_the_console_dies() {
    let folder = tempfile::tempdir().unwrap();
    let display_socket = folder.path().join("display");
    let option = format!("--display-socket={}", display_socket.display());
    let program = gpu_command(SocketForm::Connected(7)).arg(option);
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program.spawn().unwrap(), display, GpuOptions::default());
    let start = || {
        let option = format!("--display={}", display_socket.display());
        let command = Command::new(vnc_program()).arg(option);
        command.socket(SocketForm::Path).spawn().unwrap()
    };
    let mut resources: Vec<_> = (1..)
        .zip(SIZES)
        .map(|(id, size)| Resource {
            id,
            size,
            backing: vm.resource(id, XRGB, size, Pieces::Pages),
            pixels: vec![0; (size.0 * size.1 * 4) as usize],
        })
        .collect();
    vm.painted(9, Format::B8G8R8A8, (64, 64));
    let mut dice = Dice(1);
    let mut console = start();
    let mut viewers: Vec<Looking> = Vec::new();
    for round in 0..24 {
        if round % 6 == 5 {
            console.signal(Signal::KILL).unwrap();
            viewers.clear();
            console = start();
        }
        while viewers.len() < 5 {
            viewers.push(Looking::start(console.connect().unwrap(), &mut dice));
        }
        let wanted = Mutex::new(None);
        let socket = console.socket_path();
        thread::scope(|scope| {
            for viewer in &mut viewers {
                let (wanted, mut dice) = (&wanted, Dice(dice.below(u32::MAX).into()));
                scope.spawn(move || viewer.follow(wanted, socket, &mut dice));
            }
            let (shown, rect) = draw(&mut vm, &mut resources, &mut dice);
            let resource = &mut resources[shown];
            // One more pixel, which everybody has to be told of.
            let at = ((rect.y * resource.size.0 + rect.x) * 4) as usize;
            resource.pixels[at] ^= 0xff;
            *wanted.lock().unwrap() = Some(Wanted {
                size: (rect.width, rect.height),
                pixels: resource.part(rect),
            });
            resource.show(&mut vm.gpu, Rect::new(rect.x, rect.y, 1, 1));
        });
    }
    drop(viewers);
    console.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut console);
    vm.finish();
}
