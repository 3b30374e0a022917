// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VM with a GPU, a keyboard and a tablet, whose drivers and display are played.

use frontend::Memory;
use frontend::gpu::{
    Display, DisplayOptions, Format, Gpu, GpuOptions, Rect, Request, Response, ResponseKind,
};
use frontend::input::{Input, InputOptions};
use virtio_bindings::virtio_gpu as v;

use super::starts::Sessions;
use crate::scattered::{PAGE, Scattered};

/// How often each VM draws while it is watched.
pub(super) const FRAMES: usize = 5;

/// The screen's size in pixels.
const SCREEN: (u32, u32) = (1280, 800);
/// What changes: a cursor that blinks, a clock.
const PATCH: Rect = Rect::new(700, 500, 64, 64);
const RESOURCE: u32 = 1;
/// Room for rings and requests, besides the screen.
const OTHER_MEMORY: u64 = 2 << 20;

/// A VM.
pub(super) struct Vm {
    gpu: Gpu,
    display: Display,
    screen: Scattered,
    round: u32,
    _inputs: [Input; 2],
}

impl Vm {
    /// Starts the drivers, and shows a screen.
    ///
    /// # Errors
    /// If a device refuses.
    pub(super) fn start(sessions: Sessions) -> anyhow::Result<Self> {
        let [(gpu, offer), keyboard, tablet] = sessions;
        let (width, height) = SCREEN;
        let len = u64::from(width) * u64::from(height) * 4;
        let memory = Memory::with_size((len + OTHER_MEMORY).next_multiple_of(PAGE))?;
        let screen = Scattered::new(&memory, len)?;
        let (display, socket) = Display::new(DisplayOptions {
            draw: false,
            strict: false,
            ..DisplayOptions::with_modes(&[SCREEN])
        })?;
        let mut gpu = Gpu::on(gpu, offer, &memory, GpuOptions::default())?;
        gpu.run(Some(socket))?;
        let input = |(session, offer)| {
            let mut input = Input::on(session, offer, &memory, InputOptions::default())?;
            input.run()?;
            anyhow::Ok(input)
        };
        let mut vm = Self {
            gpu,
            display,
            screen,
            round: 0,
            _inputs: [input(keyboard)?, input(tablet)?],
        };
        let ok = |answer: frontend::Result<Response>| {
            answer.and_then(|answer| answer.expect("setting up", ResponseKind::OkNodata))
        };
        let whole = Rect::sized(width, height);
        vm.screen.draw(width, whole, 0)?;
        ok(vm.gpu.create_2d(RESOURCE, Format::B8G8R8X8, width, height))?;
        ok(vm.gpu.attach_backing(RESOURCE, &vm.screen.entries()))?;
        ok(vm.gpu.set_scanout(0, RESOURCE, whole))?;
        vm.show(whole)?;
        Ok(vm)
    }

    /// Changes some pixels, and flushes the screen.
    ///
    /// # Errors
    /// If the device does not show them.
    pub(super) fn draw(&mut self) -> anyhow::Result<()> {
        self.round = self.round.wrapping_add(1);
        self.screen.draw(SCREEN.0, PATCH, self.round)?;
        self.show(Rect::sized(SCREEN.0, SCREEN.1))
    }

    fn show(&mut self, rect: Rect) -> anyhow::Result<()> {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let transfer = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
        let flush = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        self.gpu
            .push(transfer, &[x, y, width, height, 0, 0, RESOURCE, 0])?;
        self.gpu.push(flush, &[x, y, width, height, RESOURCE, 0])?;
        self.gpu.control.queue.submit()?;
        self.display.serve_until("pixels", |display| {
            display.of(Request::Update).next().is_some()
        })?;
        self.display.forget();
        for _ in 0..2 {
            let (_, answer) = self.gpu.control.next_response()?;
            answer.expect("a frame", ResponseKind::OkNodata)?;
        }
        Ok(())
    }
}
