// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads of a console: a guest draws, and a viewer sees it over VNC; a viewer presses a key, and the
//! guest answers with a pixel.

mod guest;
mod ours;
mod picture;
mod qemu;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use frontend::gpu::{Format, HEADER_SIZE, Rect, ResponseKind};
use frontend::{DEFAULT_LIMIT, Deadline};
use harness::mock::codes::EV_KEY;
use rfb::Encoding;
use rfb::client::Client;
use virtio_bindings::virtio_gpu as v;

use crate::program::{MeasuredProgram, Style};
use crate::scattered::Scattered;
use crate::workload::{Batch, Sample, Workload};
use guest::Guest;
use ours::OurGuest;
use picture::{Change, Picture, Random};
use qemu::QemuGuest;

/// The screen's size in pixels.
const SCREEN: (u32, u32) = (1920, 1080);
const RESOURCE: u32 = 1;
/// Room for rings, requests and low memory, besides the screen.
const OTHER_MEMORY: u64 = 6 << 20;
/// The small change.
const PATCH: Rect = Rect::new(700, 500, 64, 64);
/// Keysym and Linux's key code of the key that is pressed.
const KEYSYM: u32 = b'a' as u32;
const KEY_CODE: u16 = 30;
/// Time between two keys: how fast a person types, in milliseconds.
const PAUSE: (usize, usize) = (100, 200);

/// What guest and viewer do again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The guest changes 64x64 pixels, and flushes these or all.
    Patch {
        /// Whether all is transferred and flushed.
        all: bool,
    },
    /// The guest draws all anew.
    Photo,
    /// The guest's terminal scrolls by a line.
    Text,
    /// The viewer presses and releases a key; the guest answers the press with 64x64 pixels.
    Key,
}

/// What is measured.
pub(crate) struct Work {
    /// Its name.
    pub name: String,
    /// What is done, and the encoding that the viewer asks for.
    pub kind: (Scenario, Encoding),
    /// How many times longer than usual it is done.
    pub times: u32,
}

/// All that is measured.
pub(crate) fn work() -> impl Iterator<Item = Work> {
    let encodings = [
        ("raw", Encoding::RAW),
        ("ZRLE", Encoding::ZRLE),
        ("Tight", Encoding::TIGHT),
    ];
    let draws = [
        (
            "1920x1080 flushed, 64x64 changed",
            Scenario::Patch { all: true },
        ),
        ("64x64 flushed", Scenario::Patch { all: false }),
        ("photo of 1920x1080", Scenario::Photo),
        ("scrolling text of 1920x1080", Scenario::Text),
    ];
    let draws = encodings.into_iter().flat_map(move |(how, encoding)| {
        draws.map(|(what, scenario)| Work {
            name: format!("console: {what}, {how}"),
            kind: (scenario, encoding),
            times: 1,
        })
    });
    draws.chain([Work {
        name: "console: key to pixel, ZRLE".into(),
        kind: (Scenario::Key, Encoding::ZRLE),
        times: 15,
    }])
}

/// Sets a console up for a scenario; none where a program has no console.
///
/// # Errors
/// If it cannot do that.
pub(crate) fn start(
    who: &MeasuredProgram,
    (scenario, encoding): (Scenario, Encoding),
) -> anyhow::Result<Option<Box<dyn Workload>>> {
    let size = (u64::from(SCREEN.0 * SCREEN.1) * 4 + OTHER_MEMORY).next_multiple_of(1 << 20);
    let guest: Box<dyn Guest> = match who.style {
        Style::Qemu => Box::new(QemuGuest::start(size)?),
        Style::Console => Box::new(OurGuest::start(size)?),
        _ => return Ok(None),
    };
    Ok(Some(Box::new(Console::start(guest, scenario, encoding)?)))
}

/// A guest, its screen and a viewer.
struct Console {
    guest: Box<dyn Guest>,
    screen: Scattered,
    picture: Picture,
    viewer: Client<UnixStream>,
    scenario: Scenario,
    random: Random,
}

impl Console {
    fn start(
        guest: Box<dyn Guest>,
        scenario: Scenario,
        encoding: Encoding,
    ) -> anyhow::Result<Self> {
        let change = match scenario {
            Scenario::Patch { .. } | Scenario::Key => Change::Patch(PATCH),
            Scenario::Photo => Change::Photo,
            Scenario::Text => Change::Text,
        };
        let (width, height) = SCREEN;
        let screen = Scattered::new(&guest.memory(), u64::from(width * height) * 4)?;
        let socket = guest.vnc();
        let stream =
            Deadline::default().until("a VNC server", || Ok(UnixStream::connect(&socket).ok()))?;
        let mut viewer = Client::connect(stream, DEFAULT_LIMIT)?;
        viewer.set_encodings(&[encoding, Encoding::DESKTOP_SIZE, Encoding::LAST_RECT])?;
        let mut console = Self {
            viewer,
            guest,
            screen,
            picture: Picture::new(SCREEN, change),
            scenario,
            random: Random(2),
        };
        console
            .prepare()
            .map_err(|e| e.context(console.guest.said()))?;
        Ok(console)
    }

    /// What a driver does before the work begins, and what a viewer does.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let (width, height) = SCREEN;
        let whole = Rect::sized(width, height);
        let entries = self.screen.entries();
        let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
        let attach = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
        let scanout = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT;
        let format = Format::B8G8R8X8 as u32;
        self.command(create, &[RESOURCE, format, width, height], &[])?;
        self.command(attach, &[RESOURCE, entries.len() as u32], &entries)?;
        self.command(scanout, &[0, 0, width, height, 0, RESOURCE], &[])?;
        self.screen.write(0, self.picture.pixels())?;
        self.flush(whole)?;
        self.wait_answers(2)?;
        while !self.is_shown() {
            self.viewer.refresh()?;
        }
        self.viewer.request(true, self.viewer.frame().rect())?;
        Ok(())
    }

    /// Sends a command and waits for its answer.
    fn command(
        &mut self,
        command: u32,
        words: &[u32],
        entries: &[(u64, u32)],
    ) -> anyhow::Result<()> {
        self.push(command, words, entries)?;
        self.guest.kick()?;
        self.wait_answers(1)
    }

    fn push(&mut self, command: u32, words: &[u32], entries: &[(u64, u32)]) -> anyhow::Result<()> {
        // The header has no fence and no context.
        let mut request = vec![0; HEADER_SIZE];
        request[..4].copy_from_slice(&command.to_le_bytes());
        request.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        for (address, len) in entries {
            request.extend(address.to_le_bytes());
            request.extend(len.to_le_bytes());
            request.extend([0; 4]);
        }
        self.guest.control().push(&request, HEADER_SIZE as u32)?;
        Ok(())
    }

    fn wait_answers(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.guest.wait_answer()?;
            let (_, answer) = self.guest.control().next_response()?;
            ensure!(
                answer.kind == ResponseKind::OkNodata,
                "answered with {:?}",
                answer.kind
            );
        }
        Ok(())
    }

    /// Transfers and flushes, with one kick.
    fn flush(&mut self, rect: Rect) -> anyhow::Result<()> {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let transfer = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
        let flush = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        let offset = (y * SCREEN.0 + x) * 4;
        self.push(
            transfer,
            &[x, y, width, height, offset, 0, RESOURCE, 0],
            &[],
        )?;
        self.push(flush, &[x, y, width, height, RESOURCE, 0], &[])?;
        self.guest.kick()
    }

    /// Draws the next frame into the guest's memory.
    fn draw(&mut self) -> anyhow::Result<()> {
        self.picture.advance();
        let changed = self.picture.changed();
        for y in changed.y..changed.y + changed.height {
            let (at, bytes) = self.picture.row(changed, y);
            self.screen.write(at as u64, bytes)?;
        }
        Ok(())
    }

    /// Whether the viewer has the frame: a row of eight, and the last one, for updates come in any order. (After
    /// a batch all are compared.)
    fn is_shown(&self) -> bool {
        let Rect { y, height, .. } = self.picture.changed();
        let rows = (y..y + height).skip(3).step_by(8);
        std::iter::once(y + height - 1)
            .chain(rows)
            .all(|y| self.has_row(y))
    }

    /// Whether the viewer has this row of what changes.
    fn has_row(&self, y: u32) -> bool {
        let (at, drawn) = self.picture.row(self.picture.changed(), y);
        let shown = self.viewer.frame().bytes().get(at..at + drawn.len());
        let pairs = |shown: &[u8]| {
            let mut pairs = shown.chunks_exact(4).zip(drawn.chunks_exact(4));
            pairs.all(|(shown, drawn)| shown[..3] == drawn[..3])
        };
        shown.is_some_and(pairs)
    }

    fn wait_shown(&mut self) -> anyhow::Result<()> {
        loop {
            self.viewer.wait_for_update()?;
            let shown = self.is_shown();
            self.viewer.request(true, self.viewer.frame().rect())?;
            if shown {
                return Ok(());
            }
        }
    }

    fn piece(&mut self) -> anyhow::Result<Sample> {
        let before = self.viewer.received();
        let start;
        match self.scenario {
            Scenario::Key => {
                let (least, more) = PAUSE;
                let pause = least + self.random.below(more - least);
                std::thread::sleep(Duration::from_millis(pause as u64));
                start = Instant::now();
                self.viewer.key(KEYSYM, true)?;
                self.wait_key(1)?;
                self.draw()?;
                self.flush(PATCH)?;
                self.wait_shown()?;
            }
            scenario => {
                self.draw()?;
                start = Instant::now();
                self.flush(match scenario {
                    Scenario::Patch { all: false } => PATCH,
                    _ => Rect::sized(SCREEN.0, SCREEN.1),
                })?;
                self.wait_shown()?;
            }
        }
        let latency = start.elapsed();
        self.wait_answers(2)?;
        if self.scenario == Scenario::Key {
            self.viewer.key(KEYSYM, false)?;
            self.wait_key(0)?;
        }
        Ok(Sample {
            latency,
            bytes: self.viewer.received() - before,
        })
    }

    /// Waits for the report of the key.
    fn wait_key(&mut self, value: i32) -> anyhow::Result<()> {
        loop {
            let event = self.guest.next_event()?;
            if event.kind == EV_KEY {
                ensure!(
                    (event.code, event.value) == (KEY_CODE, value),
                    "another key arrives: {event:?}"
                );
            }
            if event.is_report() {
                return Ok(());
            }
        }
    }

    /// Compares all that the viewer has with what the guest drew.
    fn check(&self) -> anyhow::Result<()> {
        let pairs = self
            .viewer
            .frame()
            .bytes()
            .chunks_exact(4)
            .zip(self.picture.pixels().chunks_exact(4));
        match pairs
            .clone()
            .position(|(shown, drawn)| shown[..3] != drawn[..3])
        {
            None => Ok(()),
            Some(n) => {
                let (x, y) = (n % SCREEN.0 as usize, n / SCREEN.0 as usize);
                bail!("the viewer has another pixel at {x}, {y}")
            }
        }
    }
}

impl Workload for Console {
    fn pids(&self) -> Vec<u32> {
        self.guest.pids()
    }

    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        let done = batch.run(|| self.piece());
        let samples = done.map_err(|e| e.context(self.guest.said()))?;
        self.check().context("after a batch")?;
        Ok(samples)
    }

    fn take_excess(&mut self) -> Duration {
        self.guest.take_excess()
    }
}
