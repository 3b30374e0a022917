// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device with a renderer that exports resources: pixels like the software renderer, and a memfd for
//! each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::backend::MemoryGuard;
use crate::geometry::{Rect, Size};
use crate::gpu::display::ACK_LIMIT;
use crate::gpu::protocol::{Format, Transfer2d};
use crate::gpu::region::Region;
use crate::gpu::renderer::SoftwareRenderer;
use crate::gpu::renderer::{Copied, Renderer};
use crate::gpu::resource::Backing;
use crate::gpu::resource::Budget;
use crate::gpu::resource::SharedImage;
use crate::gpu::resource::{CursorPixels, ResourceError};
use crate::gpu::resource::{Dmabuf, MODIFIER_LINEAR};

const UPDATED: u32 = 10;
const PASSED_ON: u32 = 12;
const NO_MORE: u32 = 9;
const CURSOR_POS: u32 = 4;

/// What a GPU has drawn and given back.
#[derive(Default)]
struct Drawing {
    /// Whether something is still to be read back.
    is_new: AtomicBool,
    /// Pixels that were read back so far.
    read: AtomicU64,
}

/// The resources, what a GPU draws of them, and whether they are exported.
struct Exporting(SoftwareRenderer, Arc<Drawing>, bool);

impl Renderer for Exporting {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.0.create_2d(id, format, size)
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.0.unref(id)
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        self.0.size(id)
    }

    fn new_backing(&self, id: u32, entries: u32) -> Result<Backing, ResourceError> {
        self.0.new_backing(id, entries)
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.0.attach_backing(id, backing, memory)
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        self.0.detach_backing(id)
    }

    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<Copied, ResourceError> {
        self.0.transfer_to_host_2d(transfer, first, memory, changed)
    }

    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        self.0.image_or_create(id)
    }

    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        self.0.existing_image(id)
    }

    fn read_back(
        &mut self,
        _id: u32,
        wanted: &Region,
        changed: &mut Region,
    ) -> Result<(), ResourceError> {
        let pixels = wanted.rects().iter().map(Rect::area).sum();
        self.1.read.fetch_add(pixels, Ordering::Relaxed);
        if self.1.is_new.swap(false, Ordering::Relaxed) {
            wanted.rects().iter().for_each(|rect| changed.add(*rect));
        }
        Ok(())
    }

    fn exports(&self) -> bool {
        self.2
    }

    fn export(&mut self, id: u32) -> Option<Dmabuf> {
        let size = self.0.size(id).ok().filter(|_| self.2)?;
        Some(Dmabuf {
            fd: memfd_create("dmabuf", MemfdFlags::CLOEXEC).ok()?,
            size,
            stride: size.width * 4,
            fourcc: u32::from_le_bytes(*b"XR24"),
            modifier: MODIFIER_LINEAR,
            y_0_top: false,
        })
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        self.0.cursor(id)
    }

    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        self.0.assign_uuid(id)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn name(&self) -> Option<&str> {
        Some("a GPU")
    }
}

fn machine() -> Machine {
    machine_that_draws(&Arc::default())
}

/// One whose resources changed, on the GPU alone, while `drawn` is new.
fn machine_that_draws(drawn: &Arc<Drawing>) -> Machine {
    machine_with_gpu(drawn, true)
}

fn machine_with_gpu(drawn: &Arc<Drawing>, exports: bool) -> Machine {
    let renderer = SoftwareRenderer::without_memory(Budget::new(1 << 20));
    let renderer = Exporting(renderer, drawn.clone(), exports);
    let mut machine = Machine::drawing_with(renderer);
    machine.start(0);
    machine
}

fn plug(machine: &mut Machine) -> FrontEnd {
    let mut front_end = machine.plug_display();
    assert_eq!(front_end.messages(), [FEATURES]);
    front_end.reply(FEATURES, &2_u64.to_ne_bytes());
    machine.run();
    front_end
}

#[test]
fn unanswered_dmabuf_update_does_not_block_the_guest() {
    let mut machine = machine();
    let mut front_end = plug(&mut machine);
    machine.show();
    assert_eq!(front_end.messages()[1..], [PASSED_ON, UPDATED]);
    let told = machine.program.take_status().unwrap();
    assert_eq!(told, "16x16, a GPU, screens as dmabufs");
    for _ in 0..300 {
        let flush = machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
        assert_eq!(flush, response::OK_NODATA);
    }
    assert!(front_end.messages().is_empty());
    let cursor = request(command::MOVE_CURSOR, &[0, 1, 1, 0, 1, 0, 0, 0]);
    machine.submit(CURSOR_QUEUE, &cursor, 0);
    machine.event(CURSOR_QUEUE);
    assert_eq!(front_end.messages(), [CURSOR_POS]);
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(front_end.messages(), [DISPLAY_INFO]);
    let reply = Response::DisplayInfo(Box::default()).encode(&Header::default());
    front_end.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));

    front_end.reply(UPDATED, &[]);
    machine.run();
    assert_eq!(front_end.messages(), [UPDATED]);
    front_end.reply(UPDATED, &[]);
    machine.run();
    assert!(front_end.messages().is_empty());
}

#[test]
fn part_of_a_resource_is_sent_as_pixels() {
    let mut machine = machine();
    let mut front_end = plug(&mut machine);
    machine.show();
    front_end.reply(UPDATED, &[]);
    machine.run();
    front_end.messages();
    let part = machine.control(command::SET_SCANOUT, &[8, 0, 8, 16, 0, 1]);
    assert_eq!(part, response::OK_NODATA);
    assert_eq!(front_end.messages(), [NO_MORE, SCANOUT]);
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
    assert_eq!(front_end.messages(), [UPDATE]);
    let told = machine.program.take_status().unwrap();
    assert_eq!(told, "8x16, a GPU, screens read back");
    machine.control(command::SET_SCANOUT, &[0, 0, 16, 16, 0, 1]);
    assert!(front_end.messages().is_empty());
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]);
    assert_eq!(front_end.messages(), [PASSED_ON, UPDATED]);
    machine.control(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(front_end.messages(), [NO_MORE]);
}

#[test]
fn readback_is_damage_of_other_scanouts_too() {
    let drawn = Arc::<Drawing>::default();
    let mut machine = machine_that_draws(&drawn);
    let mut front_end = plug(&mut machine);
    machine.show();
    front_end.reply(UPDATED, &[]);
    machine.run();
    front_end.messages();
    let part = machine.control(command::SET_SCANOUT, &[8, 0, 8, 16, 1, 1]);
    assert_eq!(part, response::OK_NODATA);
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
    assert_eq!(front_end.messages(), [SCANOUT, UPDATED, UPDATE]);
    // The front-end does not answer, and is sent pixels from now on.
    drawn.is_new.store(true, Ordering::Relaxed);
    let late = Instant::now() + ACK_LIMIT;
    let gpu = &mut machine.gpu;
    assert!(gpu.displays.deadline().is_some_and(|at| at <= late));
    gpu.displays.expire(late, &mut gpu.log);
    assert_eq!(gpu.displays.deadline(), None);
    gpu.displays
        .update_dmabuf_support(&mut gpu.virtio_gpu, &mut gpu.log);
    gpu.show();
    assert_eq!(front_end.messages(), [NO_MORE, SCANOUT, UPDATE]);
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
    assert_eq!(front_end.messages(), [UPDATE]);
    let told = machine.program.take_status().unwrap();
    assert!(told.ends_with("screens read back"), "{told}");

    // Late, but it does: the buffer again, without a flush. The part goes on by pixels.
    front_end.reply(UPDATED, &[]);
    machine.run();
    assert_eq!(front_end.messages(), [PASSED_ON, UPDATED]);
    let told = machine.program.take_status().unwrap();
    assert!(told.ends_with("some screens as dmabufs"), "{told}");
}

#[test]
fn paused_guest_is_shown_again_and_a_new_driver_starts_with_nothing() {
    let mut machine = machine();
    let front_end = plug(&mut machine);
    machine.show();
    drop(front_end);
    machine.run();
    machine.stop();
    let mut front_end = plug(&mut machine);
    assert_eq!(front_end.messages().len(), 1);
    machine.start(machine.drivers[0].next_available);
    assert_eq!(front_end.messages(), [PASSED_ON, UPDATED]);
    // Without an answer to the last one.
    machine.stop();
    let mut front_end = plug(&mut machine);
    machine.start(0);
    assert_eq!(front_end.messages().len(), 1);
    machine.show();
    assert_eq!(front_end.messages(), [PASSED_ON, UPDATED]);
}

#[test]
fn front_end_without_features_is_passed_linear_dmabufs() {
    let mut machine = machine();
    machine.show();
    let mut front_end = machine.plug_settled_display();
    assert_eq!(front_end.messages()[1..], [NO_MORE, UPDATED]);
}

/// Pixels that are read back when the guest flushes its 16 by 16 pixels.
fn flush(machine: &mut Machine, drawn: &Drawing) -> u64 {
    let before = drawn.read.load(Ordering::Relaxed);
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
    drawn.read.load(Ordering::Relaxed) - before
}

/// Without a console, a VMM that takes dmabufs costs no readback; nor do consoles that left.
#[test]
fn only_a_console_is_read_back_for() {
    let drawn = Arc::<Drawing>::default();
    let mut machine = machine_that_draws(&drawn);
    let mut vmm = plug(&mut machine);
    machine.show();
    assert_eq!(drawn.read.load(Ordering::Relaxed), 0);
    for _ in 0..2 {
        assert_eq!(flush(&mut machine, &drawn), 0);
        let before = drawn.read.load(Ordering::Relaxed);
        let console = displays::connect(&mut machine, 0);
        // What it is shown first.
        assert_eq!(drawn.read.load(Ordering::Relaxed) - before, 256);
        assert_eq!(flush(&mut machine, &drawn), 256);
        drop(console);
        machine.run();
        assert_eq!(flush(&mut machine, &drawn), 0);
        vmm.reply(UPDATED, &[]);
        machine.run();
    }
}

/// A GPU whose buffers cannot be passed on is read back for displays that are connected, and for no others.
#[test]
fn nothing_is_read_back_for_nobody() {
    let drawn = Arc::<Drawing>::default();
    let mut machine = machine_with_gpu(&drawn, false);
    machine.show();
    assert_eq!(flush(&mut machine, &drawn), 0);
    let told = machine.program.take_status().unwrap();
    assert_eq!(told, "16x16, a GPU, no display");
    let mut console = displays::connect(&mut machine, 0);
    assert_eq!(console.messages().last(), Some(&UPDATE));
    assert_eq!(flush(&mut machine, &drawn), 256);
    drop(console);
    machine.run();
    assert_eq!(flush(&mut machine, &drawn), 0);

    let mut vmm = machine.plug_settled_display();
    assert_eq!(vmm.messages().last(), Some(&UPDATE));
    assert_eq!(flush(&mut machine, &drawn), 256);
    let told = machine.program.take_status().unwrap();
    assert_eq!(told, "16x16, a GPU, screens read back");
    drop(vmm);
    machine.run();
    assert_eq!(flush(&mut machine, &drawn), 0);
}
