// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads of a vhost-user-gpu program.

use std::time::Instant;

use anyhow::ensure;
use frontend::Memory;
use frontend::gpu::{
    Create3d, DisplayOptions, DisplayThread, EdidAnswer, Format, Framebuffer, Gpu, GpuOptions,
    Rect, Request, ResponseKind, Stream,
};
use virtio_bindings::virtio_gpu as v;

use crate::baseline::Baseline;
use crate::program::{MeasuredProgram, Process, Started, Style};
use crate::scattered::{PAGE, Scattered};
use crate::workload::{Batch, Sample, Workload};

const RESOURCE: u32 = 1;
const CONTEXT: u32 = 1;
const TRANSFER: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
const FLUSH: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
/// Room for rings, requests and a list of 16384 entries, besides the screen.
const OTHER_MEMORY: u64 = 4 << 20;

/// What a guest does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Draws `changed` of a screen of this size, transfers and flushes `damage`.
    Draw {
        /// Of the screen.
        screen: (u32, u32),
        /// What is transferred and flushed.
        damage: Rect,
        /// What really changed.
        changed: Rect,
    },
    /// The same of a blob, which needs no transfer.
    DrawBlob {
        /// Of the screen.
        screen: (u32, u32),
        /// What is flushed.
        damage: Rect,
        /// What really changed.
        changed: Rect,
    },
    /// Moves the cursor.
    Cursor,
    /// Transfers a square that did not change, some times a kick.
    Commands {
        /// How often a kick.
        count: u16,
        /// Pixels of a side.
        side: u32,
    },
    /// Transfers 8x8 pixels that did not change, of each of so many resources in turn.
    Resources(u32),
    /// Has OpenGL clear a picture so many times, by as many commands, 50 of them a kick.
    Submits(u32),
    /// Has OpenGL clear the whole screen, in turn with two colors, and flushes it.
    Readback,
    /// Attaches a backing of as many entries, and detaches it.
    Attach(u32),
    /// Nothing: the program is idle.
    Idle,
}

impl Scenario {
    /// Width and height in pixels.
    pub(crate) fn screen(self) -> (u32, u32) {
        match self {
            Self::Draw { screen, .. } | Self::DrawBlob { screen, .. } => screen,
            Self::Attach(entries) => (1024, entries),
            Self::Submits(_) => (64, 64),
            _ => (1920, 1080),
        }
    }

    /// Whether it needs OpenGL.
    pub(crate) fn is_3d(self) -> bool {
        matches!(self, Self::Submits(_) | Self::Readback)
    }

    /// Bytes that must be copied and sent for it; `None` where that says nothing.
    fn bytes(self) -> Option<(u64, u64)> {
        match self {
            Self::Draw {
                damage, changed, ..
            } => Some((bytes(damage), bytes(changed))),
            _ => None,
        }
    }
}

fn bytes(rect: Rect) -> u64 {
    u64::from(rect.width) * u64::from(rect.height) * 4
}

/// Sets a program up for a scenario.
///
/// # Errors
/// If it cannot do that.
pub(crate) fn start(
    who: &MeasuredProgram,
    scenario: Scenario,
) -> anyhow::Result<Option<Box<dyn Workload>>> {
    if who.style == Style::Baseline {
        return match scenario.bytes() {
            Some((copied, sent)) => Ok(Some(Box::new(Baseline::start(&who.path, copied, sent)?))),
            None => Ok(None),
        };
    }
    Ok(Some(Box::new(Machine::start(who, scenario)?)))
}

/// What went wrong, and what the program says of it.
fn told(program: &Process, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let said = program.log();
    let error = error.into();
    match said.trim().lines().last() {
        Some(line) => error.context(format!("it said \"{line}\"")),
        None => error,
    }
}

/// A guest with a screen, before a backend.
struct Machine {
    program: Process,
    gpu: Gpu,
    display: DisplayThread,
    scenario: Scenario,
    screen: Scattered,
    round: u32,
}

impl Machine {
    fn start(who: &MeasuredProgram, scenario: Scenario) -> anyhow::Result<Self> {
        let Started {
            program, session, ..
        } = match scenario.is_3d() {
            false => who.start(&[], &[])?,
            // By software, whatever the host has.
            true => who.start(
                &["--virgl".into()],
                &[("LIBGL_ALWAYS_SOFTWARE", "1".into())],
            )?,
        };
        let (width, height) = scenario.screen();
        let len = u64::from(width) * u64::from(height) * 4;
        let memory = Memory::with_size((len + OTHER_MEMORY).next_multiple_of(PAGE))?;
        let screen = Scattered::new(&memory, len)?;
        let options = DisplayOptions {
            draw: false,
            strict: false,
            // Newer C programs refuse a front-end that takes the feature and cannot answer.
            edid: EdidAnswer::Blocks(vec![vec![0; 128]]),
            ..DisplayOptions::with_modes(&[(width, height)])
        };
        let (display, socket) = DisplayThread::start(options)?;
        let options = match scenario.is_3d() {
            true => GpuOptions::virgl(),
            false => GpuOptions {
                control_size: 256,
                ..GpuOptions::with_blobs()
            },
        };
        let mut machine = Self {
            gpu: Gpu::start(session, &memory, Some(socket), options)
                .map_err(|e| told(&program, e))?,
            program,
            display,
            scenario,
            screen,
            round: 0,
        };
        let prepared = machine.prepare(width, height);
        prepared.map_err(|e| told(&machine.program, e))?;
        Ok(machine)
    }

    /// What a driver does before the work begins.
    fn prepare(&mut self, width: u32, height: u32) -> anyhow::Result<()> {
        let gpu = &mut self.gpu;
        let ok = |r: frontend::Result<frontend::gpu::Response>| {
            r.and_then(|r| r.expect("setting up", ResponseKind::OkNodata))
        };
        gpu.get_display_info()?;
        if self.scenario == Scenario::Idle {
            return Ok(());
        }
        if self.scenario.is_3d() {
            let whole = Rect::sized(width, height);
            ok(gpu.create_context(CONTEXT, "bench"))?;
            ok(gpu.create_3d(RESOURCE, Create3d::picture(width, height)))?;
            ok(gpu.context_attach(CONTEXT, RESOURCE))?;
            ok(gpu.set_scanout(0, RESOURCE, whole))?;
            let stream = Stream::default().draw_to(1, RESOURCE).clear([0.0; 3]);
            ok(gpu.submit_3d(CONTEXT, &stream))?;
            ok(gpu.flush(RESOURCE, whole))?;
            self.display.wait_count(Request::Update, 1)?;
            return Ok(());
        }
        // Not black: private memory that was never written is one page of zeros, or a huge one, which stays in the caches; shared
        // memory is allocated when it is read first. A driver shows no image that it has not drawn.
        self.screen.draw(width, Rect::sized(width, height), 0)?;
        if let Scenario::Resources(count) = self.scenario {
            for id in (1..=count).map(|n| RESOURCE + n) {
                ok(gpu.create_2d(id, Format::B8G8R8X8, 8, 8))?;
                ok(gpu.attach_backing(id, &[(self.screen.page(0), 256)]))?;
                ok(gpu.transfer_to_host_2d(id, Rect::sized(8, 8), 0))?;
            }
        }
        let whole = Rect::sized(width, height);
        if matches!(self.scenario, Scenario::DrawBlob { .. }) {
            let framebuffer = Framebuffer {
                format: Format::B8G8R8X8,
                size: (width, height),
                stride: width * 4,
                offset: 0,
            };
            let len = u64::from(width) * u64::from(height) * 4;
            ok(gpu.create_blob(RESOURCE, len, &self.screen.entries()))?;
            ok(gpu.set_scanout_blob(0, RESOURCE, whole, &framebuffer))?;
            ok(gpu.flush(RESOURCE, whole))?;
            self.display.wait_count(Request::Update, 1)?;
            return Ok(());
        }
        ok(gpu.create_2d(RESOURCE, Format::B8G8R8X8, width, height))?;
        if matches!(self.scenario, Scenario::Attach(_)) {
            return Ok(());
        }
        ok(gpu.attach_backing(RESOURCE, &self.screen.entries()))?;
        ok(gpu.set_scanout(0, RESOURCE, whole))?;
        ok(gpu.transfer_to_host_2d(RESOURCE, whole, 0))?;
        ok(gpu.flush(RESOURCE, whole))?;
        self.display.wait_count(Request::Update, 1)?;
        if self.scenario == Scenario::Cursor {
            ok(gpu.create_2d(2, Format::B8G8R8A8, 64, 64))?;
            ok(gpu.attach_backing(2, &[(self.screen.page(0), 64 * 64 * 4)]))?;
            ok(gpu.transfer_to_host_2d(2, Rect::sized(64, 64), 0))?;
            gpu.update_cursor(0, (0, 0), 2, (0, 0))?;
            self.display.wait_count(Request::CursorUpdate, 1)?;
        }
        Ok(())
    }

    fn piece(&mut self) -> anyhow::Result<Sample> {
        self.round = self.round.wrapping_add(1);
        let before = {
            let mut display = self.display.lock();
            display.forget();
            display.bytes
        };
        let start = match self.scenario {
            Scenario::Draw {
                screen: (width, _),
                damage,
                changed,
            }
            | Scenario::DrawBlob {
                screen: (width, _),
                damage,
                changed,
            } => {
                self.screen.draw(width, changed, self.round)?;
                let start = Instant::now();
                let transfers = usize::from(matches!(self.scenario, Scenario::Draw { .. }));
                if transfers != 0 {
                    self.push_transfer(width, damage)?;
                }
                let Rect {
                    x,
                    y,
                    width: w,
                    height: h,
                } = damage;
                self.gpu.push(FLUSH, &[x, y, w, h, RESOURCE, 0])?;
                self.finish(transfers + 1)?;
                self.display.wait_count(Request::Update, 1)?;
                start
            }
            Scenario::Cursor => {
                let start = Instant::now();
                self.gpu
                    .move_cursor(0, (self.round % 1900, self.round % 1000), 2)?;
                self.display.wait_count(Request::CursorPos, 1)?;
                start
            }
            Scenario::Commands { count, side } => {
                let start = Instant::now();
                for _ in 0..count {
                    self.push_transfer(1920, Rect::new(800, 600, side, side))?;
                }
                self.finish(count.into())?;
                start
            }
            Scenario::Resources(count) => {
                let id = RESOURCE + 1 + self.round.wrapping_mul(0x9e37_79b1) % count;
                let start = Instant::now();
                self.gpu.push(TRANSFER, &[0, 0, 8, 8, 0, 0, id, 0])?;
                self.finish(1)?;
                start
            }
            Scenario::Submits(count) => {
                let start = Instant::now();
                for first in (0..count).step_by(50) {
                    let last = count.min(first + 50);
                    for n in first..last {
                        let shade = (self.round.wrapping_add(n) % 100) as f32 / 100.0;
                        let stream = Stream::default().clear([shade, 0.5, 0.0]);
                        self.gpu.push_submit_3d(CONTEXT, &stream)?;
                    }
                    self.finish((last - first) as usize)?;
                }
                self.flush_all()?;
                start
            }
            Scenario::Readback => {
                let start = Instant::now();
                let shade = (self.round % 100) as f32 / 100.0;
                let stream = Stream::default().clear([shade, 0.5, 0.0]);
                self.gpu.push_submit_3d(CONTEXT, &stream)?;
                self.finish(1)?;
                self.flush_all()?;
                start
            }
            Scenario::Attach(count) => {
                let entries = self.screen.entries();
                let start = Instant::now();
                let (n, entries) = (count, &entries[..count as usize]);
                let attached = self.gpu.attach_backing_raw(RESOURCE, n, entries)?;
                attached.expect("ATTACH_BACKING", ResponseKind::OkNodata)?;
                let detached = self.gpu.detach_backing(RESOURCE)?;
                detached.expect("DETACH_BACKING", ResponseKind::OkNodata)?;
                start
            }
            Scenario::Idle => Instant::now(),
        };
        let latency = start.elapsed();
        Ok(Sample {
            latency,
            bytes: (self.display.lock().bytes - before) as u64,
        })
    }

    fn flush_all(&mut self) -> anyhow::Result<()> {
        let (width, height) = self.scenario.screen();
        self.gpu.push(FLUSH, &[0, 0, width, height, RESOURCE, 0])?;
        self.finish(1)?;
        self.display.wait_count(Request::Update, 1)?;
        Ok(())
    }

    fn push_transfer(&mut self, stride: u32, rect: Rect) -> anyhow::Result<()> {
        let offset = (u64::from(rect.y) * u64::from(stride) + u64::from(rect.x)) * 4;
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let words = [
            x,
            y,
            width,
            height,
            offset as u32,
            (offset >> 32) as u32,
            RESOURCE,
            0,
        ];
        self.gpu.push(TRANSFER, &words)?;
        Ok(())
    }

    /// Kicks once for all that was pushed, and waits for as many answers.
    fn finish(&mut self, count: usize) -> anyhow::Result<()> {
        self.gpu.control.queue.submit()?;
        for _ in 0..count {
            let (_, answer) = self.gpu.control.next_response()?;
            ensure!(
                answer.kind == ResponseKind::OkNodata,
                "answered with {:?}",
                answer.kind
            );
        }
        Ok(())
    }
}

impl Workload for Machine {
    fn pids(&self) -> Vec<u32> {
        self.program.pid().into_iter().collect()
    }

    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        let done = batch.run(|| self.piece());
        done.map_err(|e| told(&self.program, e))
    }
}
