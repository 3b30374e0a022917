// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests with fences, and a renderer whose fences retire when the test says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{GuestAddressSpace as _, GuestMemoryMmap};

use super::*;
use crate::backend::MemoryGuard;
use crate::geometry::Size;
use crate::gpu::device::testing::machine::{Machine, NEXT, QUEUE_SIZE, WRITE, request};
use crate::gpu::protocol::{
    CapsetInfo, Format, ResourceCreate3d, RingId, Transfer2d, Transfer3d, command,
};
use crate::gpu::region::Region;
use crate::gpu::renderer::{ContextError, Copied, Direction, Fence, Renderer, Renderer3d};
use crate::gpu::resource::SharedImage;
use crate::gpu::resource::{Backing, BackingError};
use crate::gpu::resource::{CursorPixels, ResourceError};

/// Has no resources, and retires fences when told.
struct Slow {
    begun: Arc<AtomicU32>,
    retires: Arc<AtomicBool>,
    event: OwnedFd,
}

type Resource<T> = Result<T, ResourceError>;

impl Renderer for Slow {
    fn create_2d(&mut self, _: u32, _: Format, _: Size) -> Resource<()> {
        Ok(())
    }
    fn unref(&mut self, id: u32) -> Resource<()> {
        Err(ResourceError::Unknown(id))
    }
    fn size(&self, id: u32) -> Resource<Size> {
        Err(ResourceError::Unknown(id))
    }
    fn new_backing(&self, id: u32, _entries: u32) -> Resource<Backing> {
        Err(ResourceError::Unknown(id))
    }
    fn attach_backing(&mut self, id: u32, _: Backing, _: &MemoryGuard) -> Resource<()> {
        let source = BackingError::Budget;
        Err(ResourceError::Backing { id, source })
    }
    fn detach_backing(&mut self, id: u32) -> Resource<()> {
        Err(ResourceError::Unknown(id))
    }
    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        _: u32,
        _: &MemoryGuard,
        _: &mut Region,
    ) -> Resource<Copied> {
        Err(ResourceError::Unknown(transfer.id))
    }
    fn image_or_create(&mut self, id: u32) -> Resource<SharedImage> {
        Err(ResourceError::Unknown(id))
    }
    fn existing_image(&self, id: u32) -> Resource<Option<SharedImage>> {
        Err(ResourceError::Unknown(id))
    }
    fn cursor(&mut self, id: u32) -> Resource<CursorPixels> {
        Err(ResourceError::Unknown(id))
    }
    fn assign_uuid(&mut self, id: u32) -> Resource<[u8; 16]> {
        Err(ResourceError::Unknown(id))
    }
    fn reset(&mut self) {}
    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        Some(self)
    }
}

impl Renderer3d for Slow {
    fn capsets(&self) -> &[CapsetInfo] {
        &[]
    }
    fn capset(&mut self, _: u32, _: u32) -> Option<Vec<u8>> {
        None
    }
    fn create_context(&mut self, id: u32, _: &[u8], _: u32) -> Result<(), ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn attach_resource(&mut self, id: u32, _: u32) -> Result<(), ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn detach_resource(&mut self, id: u32, _: u32) -> Result<(), ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn create_3d(&mut self, new: &ResourceCreate3d) -> Resource<()> {
        Err(ResourceError::Unknown(new.id))
    }
    fn transfer_3d(&mut self, id: u32, _: &Transfer3d, _: Direction) -> Result<u64, ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn submit(&mut self, id: u32, _: &mut [u32]) -> Result<(), ContextError> {
        Err(ContextError::Unknown(id))
    }
    fn fence(&mut self, _: Option<RingId>) -> Option<Fence> {
        Some(Fence(self.begun.fetch_add(1, Ordering::Relaxed)))
    }
    fn poll_fences(&mut self) {
        let mut count = [0; 8];
        // Nothing there is nothing to take.
        let _ = rustix::io::read(&self.event, &mut count);
    }
    fn is_retired(&self, _: Fence) -> bool {
        self.retires.load(Ordering::Relaxed)
    }
    fn fence_event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A device with a [`Slow`] renderer, the number of its fences, and whether they are retired.
fn machine() -> (Machine, Arc<AtomicU32>, Arc<AtomicBool>, OwnedFd) {
    let begun = Arc::new(AtomicU32::new(0));
    let retires = Arc::new(AtomicBool::new(false));
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let renderer = Slow {
        begun: begun.clone(),
        retires: retires.clone(),
        event: event.try_clone().unwrap(),
    };
    let mut machine = Machine::drawing_with(renderer);
    machine.start(0);
    (machine, begun, retires, event)
}

fn fenced() -> Vec<u8> {
    let mut request = request(command::RESOURCE_CREATE_2D, &[1, 1, 8, 8]);
    request[4] = 1;
    request
}

/// QEMU changes a region by removing and adding it; some machines have only one.
#[test]
fn fence_that_retires_while_no_memory_is_shared_is_answered_later() {
    let (mut machine, begun, retires, _event) = machine();
    machine.submit(CONTROL_QUEUE, &fenced(), 24);
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    let replace_memory = |machine: &mut Machine, memory| {
        machine.memory.lock().unwrap().replace(memory);
        machine.gpu.memory_changed();
        machine.run();
    };
    let whole = GuestMemoryMmap::clone(&machine.memory.memory());
    replace_memory(&mut machine, GuestMemoryMmap::new());
    retires.store(true, Ordering::Relaxed);
    machine.event(FENCE);
    machine.run();
    replace_memory(&mut machine, whole);
    assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, 24)));
    assert_eq!(machine.completed(CONTROL_QUEUE), None);
}

/// A driver that makes the same descriptors available again, without a wait for their answer, has
/// no more requests kept than its queue has entries, and the others after that.
#[test]
fn fenced_requests_are_at_most_the_entries_of_the_queue() {
    let (mut machine, begun, retires, _event) = machine();
    machine.submit(CONTROL_QUEUE, &fenced(), 24);
    for _ in 0..3 {
        for _ in 0..QUEUE_SIZE / 2 {
            machine.publish(CONTROL_QUEUE, 0);
        }
        machine.event(CONTROL_QUEUE);
        machine.run();
    }
    assert_eq!(begun.load(Ordering::Relaxed), u32::from(QUEUE_SIZE));
    assert_eq!(machine.completed(CONTROL_QUEUE), None);
    // All that is there is answered, in the end.
    retires.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        machine.event(FENCE);
        machine.run();
    }
    let answered = std::iter::from_fn(|| machine.completed(CONTROL_QUEUE)).count();
    assert_eq!(answered, usize::from(QUEUE_SIZE / 2) * 3 + 1);
}

/// Nor more than a bound of our own, where the queue is as large as virtio allows.
#[test]
fn fenced_requests_are_bounded_in_a_queue_of_32768_entries() {
    const KEPT: u32 = 1024;
    let (mut machine, begun, retires, _event) = machine();
    let [table, avail, used, buffers] = [0x30_0000, 0x38_0000, 0x3a_0000, 0x3f_0000_u64];
    let vring = &machine.vrings[usize::from(CONTROL_QUEUE)];
    vring.set_queue_size(32768);
    vring.set_queue_info(table, avail, used).unwrap();
    let request = fenced();
    let response = buffers + 0x1000;
    for (at, addr, len, flags) in [
        (table, buffers, request.len() as u32, NEXT),
        (table + 16, response, 24, WRITE),
    ] {
        machine.write(at, &addr.to_le_bytes());
        machine.write(at + 8, &len.to_le_bytes());
        machine.write(at + 12, &flags.to_le_bytes());
        machine.write(at + 14, &1_u16.to_le_bytes());
    }
    machine.write(buffers, &request);
    // All entries of the available ring are 0: the same request, again and again.
    let made = 3000_u16;
    machine.write(avail + 2, &made.to_le_bytes());
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(begun.load(Ordering::Relaxed), KEPT);
    assert_eq!(machine.read(used + 2, 2), [0; 2]);
    retires.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        machine.event(FENCE);
        machine.run();
    }
    assert_eq!(machine.read(used + 2, 2), made.to_le_bytes());
}

/// What the renderer signals once is looked after once, and told once.
#[test]
fn fences_retired_together_complete_in_one_wake_up() {
    let (mut machine, _begun, retires, event) = machine();
    let calls = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    machine.vrings[0].set_call(Some(calls.try_clone().unwrap().into()));
    for _ in 0..5 {
        machine.submit(CONTROL_QUEUE, &fenced(), 24);
    }
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(machine.completed(CONTROL_QUEUE), None);

    retires.store(true, Ordering::Relaxed);
    rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(machine.serve_ready(0), [FENCE]);
    let answered = std::iter::from_fn(|| machine.completed(CONTROL_QUEUE)).count();
    assert_eq!(answered, 5);
    let mut count = [0; 8];
    rustix::io::read(&calls, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1, "notifications");
    assert!(
        machine.serve_ready(0).is_empty(),
        "there is nothing left to do"
    );
}

/// A cursor waits for control requests, but not for fences that may never be retired.
#[test]
fn queue_full_of_fences_does_not_block_the_cursor() {
    let (mut machine, _begun, _retires, _event) = machine();
    machine.submit(CONTROL_QUEUE, &fenced(), 24);
    for _ in 0..2 {
        for _ in 0..QUEUE_SIZE / 2 {
            machine.publish(CONTROL_QUEUE, 0);
        }
        machine.event(CONTROL_QUEUE);
        machine.run();
    }
    assert_eq!(machine.completed(CONTROL_QUEUE), None);
    let shape = request(command::UPDATE_CURSOR, &[0, 1, 2, 0, 1, 0, 0, 0]);
    machine.submit(CURSOR_QUEUE, &shape, 0);
    machine.event(CURSOR_QUEUE);
    machine.run();
    assert!(machine.completed(CURSOR_QUEUE).is_some());
}
