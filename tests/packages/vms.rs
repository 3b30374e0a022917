// SPDX-License-Identifier: Apache-2.0 OR MIT
//! VMs on a machine with the packages: front-ends that draw and type.

use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, ensure};
use frontend::events::EventsClient;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Memory, Session};
use harness::image::Image;

use crate::common::{Backing, Pieces, guest_memory, ok, picture};
use crate::machine::Machine;

const FORMAT: Format = Format::B8G8R8X8;
const SIZE: (u32, u32) = (64, 48);
const SCREEN: u32 = 1;
const KEY_A: u16 = 30;

/// A VM with the GPU and the keyboard of a console.
pub(crate) struct Vm {
    pub(crate) services: [String; 2],
    gpu: Gpu,
    display: DisplayThread,
    backing: Backing,
    keyboard: Input,
    client: EventsClient,
    drawn: u8,
}

impl Vm {
    /// After `vhostctl add console NAME --now`.
    pub(crate) fn start(machine: &Machine, name: &str) -> anyhow::Result<Self> {
        let services = [
            format!("vhost-user-gpu@{name}.service"),
            format!("vhost-user-input@{name}:keyboard.service"),
        ];
        let path = |socket: &str| machine.sandbox.path(&format!("/run/{socket}.sock"));
        let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
        let session = connect(&path(&format!("vhost-user/gpu/{name}")))?;
        let memory = guest_memory();
        let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default())
            .with_context(|| machine.said(&services[0]))?;
        ok(gpu.create_2d(SCREEN, FORMAT, SIZE.0, SIZE.1));
        let backing = Backing::new(gpu.memory(), SIZE.0 * SIZE.1 * 4, Pieces::Pages);
        ok(gpu.attach_backing(SCREEN, &backing.entries));
        ok(gpu.set_scanout(0, SCREEN, Rect::sized(SIZE.0, SIZE.1)));
        let session = connect(&path(&format!("vhost-user/input/{name}:keyboard")))?;
        let memory = Memory::with_size(1 << 20)?;
        let keyboard = Input::start(session, &memory, InputOptions::default())
            .with_context(|| machine.said(&services[1]))?;
        let events = path(&format!("vhost-user-console/{name}:keyboard/events"));
        Ok(Self {
            services,
            gpu,
            display,
            backing,
            keyboard,
            client: EventsClient::connect(&events)?,
            drawn: 0,
        })
    }

    /// What is drawn now.
    pub(crate) fn drawn(&self) -> Image {
        let places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        let pixel = |(x, y)| {
            let [red, green, blue] = color(self.drawn, x, y);
            u32::from_be_bytes([0, red, green, blue])
        };
        Image {
            width: SIZE.0,
            height: SIZE.1,
            pixels: places.map(pixel).collect(),
        }
    }

    /// What is drawn is shown, and a key arrives once.
    pub(crate) fn works(&mut self) -> anyhow::Result<()> {
        self.drawn = self.drawn.wrapping_add(1);
        let n = self.drawn;
        let color = move |x: u32, y: u32| color(n, x, y);
        self.backing.write(0, &picture(FORMAT, SIZE, color));
        let whole = Rect::sized(SIZE.0, SIZE.1);
        ok(self.gpu.transfer_to_host_2d(SCREEN, whole, 0));
        ok(self.gpu.flush(SCREEN, whole));
        self.display.wait("the picture", |display| {
            let surface = display.surface(0).ok()?;
            let mut places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
            places
                .all(|(x, y)| surface.rgb(x, y) == Some(color(x, y)))
                .then_some(())
        })?;
        for value in [1, 0] {
            let report = [Event::new(1, KEY_A, value), Event::report()];
            self.client.send(&report)?;
            let seen = self.keyboard.next_report()?;
            ensure!(seen == report, "{seen:?} instead of {report:?}");
        }
        Ok(())
    }
}

/// The colour of a pixel of a VM's picture.
fn color(picture: u8, x: u32, y: u32) -> [u8; 3] {
    [x as u8 ^ picture, y as u8, picture]
}

fn connect(path: &Path) -> anyhow::Result<Session> {
    let stream = UnixStream::connect(path)
        .with_context(|| format!("cannot connect to {}", path.display()))?;
    Ok(Session::new(stream))
}
