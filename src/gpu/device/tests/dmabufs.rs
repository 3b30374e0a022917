//! The device with a renderer that exports resources: pixels like the software renderer, and a memfd for
//! each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::backend::MemoryGuard;
use crate::geometry::Size;
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

/// The resources, and whether a GPU drew something that is still to be read back.
struct Exporting(SoftwareRenderer, Arc<AtomicBool>);

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

    fn new_backing(&self, id: u32) -> Result<Backing, ResourceError> {
        self.0.new_backing(id)
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
        if self.1.swap(false, Ordering::Relaxed) {
            wanted.rects().iter().for_each(|rect| changed.add(*rect));
        }
        Ok(())
    }

    fn exports(&self) -> bool {
        true
    }

    fn export(&mut self, id: u32) -> Option<Dmabuf> {
        let size = self.0.size(id).ok()?;
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

/// One whose resources changed, on the GPU alone, while `drawn` is set.
fn machine_that_draws(drawn: &Arc<AtomicBool>) -> Machine {
    let renderer = SoftwareRenderer::new(Budget::new(1 << 20));
    let renderer = Exporting(renderer, drawn.clone());
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
    let drawn = Arc::default();
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
    drawn.store(true, Ordering::Relaxed);
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
