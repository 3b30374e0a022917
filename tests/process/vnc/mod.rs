// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console: vhost-vnc between a GPU and viewers.

mod cursor;
mod end;
mod fake_gpu;
mod first_frame;
mod memory;
mod real_gpu;
mod real_input;
mod resize;
mod several;
mod states;
mod stress;
mod tcp;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use conventions::ScreenState;
use display_protocol::Features;
use frontend::{Command, Program, SocketForm};
use rfb::client::Client;
use rfb::{Encoding, Rect};

use crate::common::{QUICK, vnc_program};
use fake_gpu::FakeGpu;

/// A viewer of these tests.
type Viewer = Client<UnixStream>;

/// vhost-vnc with a GPU of the test's.
struct Console {
    program: Program,
    folder: tempfile::TempDir,
}

impl Console {
    /// Starts it with `options`. Its GPU is expected at [`Self::display`].
    fn start(options: &[&str]) -> Self {
        Self::with(|command| command.args(options).socket(SocketForm::Path))
    }

    fn with(change: impl FnOnce(Command) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let display = format!("--display={}", folder.path().join("display.sock").display());
        let command = Command::new(vnc_program()).args([&display, "--name=vm1"]);
        Self {
            program: change(command).spawn().unwrap(),
            folder,
        }
    }

    /// Where it looks for the GPU.
    fn display(&self) -> PathBuf {
        self.folder.path().join("display.sock")
    }

    /// Starts it with a GPU, to which it is not connected before a viewer is there.
    fn with_gpu() -> (Self, FakeGpu) {
        let console = Self::start(&[]);
        let gpu = FakeGpu::listen(&console.display());
        (console, gpu)
    }

    /// Starts it with a GPU that shows a picture, and a viewer that takes `encodings`.
    fn showing(size: (u16, u16), pixels: &[u8], encodings: &[Encoding]) -> (Self, FakeGpu, Viewer) {
        let (mut console, mut gpu) = Self::with_gpu();
        let joining = console.join();
        gpu.accept(Features::RESIZE);
        gpu.scanout(0, size.0, size.1);
        gpu.update(0, 0, size.0, size.1, pixels);
        let mut viewer = joining.join().unwrap();
        viewer.set_encodings(encodings).unwrap();
        assert_shows(&mut viewer, size, pixels);
        (console, gpu, viewer)
    }

    /// A viewer that waits until the GPU says what it shows.
    fn join(&mut self) -> JoinHandle<Viewer> {
        let stream = self.program.connect().unwrap();
        std::thread::spawn(|| Client::connect(stream, QUICK).unwrap())
    }

    fn viewer(&mut self) -> Viewer {
        Client::connect(self.program.connect().unwrap(), QUICK).unwrap()
    }
}

/// Waits until the viewer's picture is `pixels`.
fn assert_shows(viewer: &mut Viewer, size: (u16, u16), pixels: &[u8]) {
    let shows = |viewer: &Viewer| {
        let frame = viewer.frame();
        (frame.width(), frame.height()) == size && rgb(frame.bytes()) == rgb(pixels)
    };
    if let Err(e) = viewer.wait_until(shows) {
        let (frame, rect) = (viewer.frame(), Rect::of_size(size.0, size.1));
        let pairs = frame.bytes().iter().zip(pixels);
        let different = pairs.filter(|(a, b)| a != b).count();
        panic!(
            "{e}: {:?} instead of {rect:?}, {different} bytes differ",
            frame.rect()
        );
    }
}

/// Waits until the viewer's picture has something on black, as a text is, and the desktop's name says `state`.
fn assert_shows_text(viewer: &mut Viewer, state: ScreenState) {
    let shows = |viewer: &Viewer| {
        let pixels = rgb(viewer.frame().bytes());
        let lit = pixels.iter().filter(|byte| **byte != 0).count();
        ScreenState::of_desktop(viewer.name()) == state && lit > 300 && lit < pixels.len() / 10
    };
    if let Err(e) = viewer.wait_until(shows) {
        panic!("{e}: {:?} {:?}", viewer.name(), viewer.frame().rect());
    }
}

/// Pixels without their unused byte.
fn rgb(pixels: &[u8]) -> Vec<u8> {
    let pixels = pixels.chunks_exact(4);
    pixels
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect()
}

/// A picture in which every pixel is different from its neighbours.
fn picture(width: u16, height: u16, seed: u32) -> Vec<u8> {
    let area = u32::from(width) * u32::from(height);
    let pixel = |n: u32| {
        n.wrapping_add(seed)
            .wrapping_mul(2_654_435_761)
            .to_le_bytes()
    };
    (0..area).flat_map(pixel).collect()
}
