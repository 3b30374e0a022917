// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device reads and writes in the rings of a split virtqueue (virtio 1.2, 2.7.6 to 2.7.10), beside `virtio-queue`.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Sizes and offsets within a split virtqueue, in bytes.
pub(super) const DESCRIPTOR: u64 = 16;
pub(super) const AVAIL_RING: u64 = 4;
pub(super) const AVAIL_ELEMENT: u64 = 2;
const USED_INDEX: u64 = 2;
/// An element of the used ring, as it lies there.
pub(super) type UsedElement = [u8; USED_ELEMENT as usize];
pub(super) const USED_RING: u64 = 4;
pub(super) const USED_ELEMENT: u64 = 8;
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Why a virtqueue cannot be used. All but [`VirtqueueError::Notify`] are the driver's fault.
#[derive(Debug, thiserror::Error)]
pub enum VirtqueueError {
    /// `virtio-queue` refuses it.
    #[error("the virtqueue is broken: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The size is not a power of two.
    #[error("the driver chose a size for the virtqueue that is no power of two")]
    Size,
    /// A part of it is outside the guest's memory.
    #[error("the virtqueue lies outside the guest's memory")]
    Outside,
    /// An access to it failed.
    #[error("the virtqueue lies outside the guest's memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The front-end's eventfd failed.
    #[error("cannot notify the driver: {0}")]
    Notify(#[from] std::io::Error),
}

/// The used element of the request with the head index `head`, with `len` bytes written to its buffers.
pub(super) fn used_element(head: u16, len: u32) -> UsedElement {
    (u64::from(head) | u64::from(len) << 32).to_le_bytes()
}

/// Writes used elements from `index` on, which the driver sees once they are published.
pub(super) fn write_used(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    index: Wrapping<u16>,
    elements: &[UsedElement],
) -> Result<(), VirtqueueError> {
    let slot = index.0.checked_rem(queue.size()).unwrap_or(0);
    // The ring's first entry follows its last one.
    let up_to_end = usize::from(queue.size().saturating_sub(slot));
    let (now, rest) = elements
        .split_at_checked(up_to_end)
        .unwrap_or((elements, &[]));
    for (slot, elements) in [(slot, now), (0, rest)] {
        if elements.is_empty() {
            continue;
        }
        let bytes = elements.as_flattened();
        let at = USED_RING + u64::from(slot) * USED_ELEMENT;
        let at = offset(queue.used_ring(), at)?;
        match memory.get_slice(at, bytes.len()) {
            Ok(slice) => slice.copy_from(bytes),
            // They span two regions, or are outside the guest's memory.
            Err(_) => memory.write_slice(bytes, at)?,
        }
    }
    Ok(())
}

/// Shows the driver all used elements that are written.
pub(super) fn publish_used(queue: &Queue, memory: &GuestMemoryMmap) -> Result<(), VirtqueueError> {
    let at = offset(queue.used_ring(), USED_INDEX)?;
    // The elements must be visible before the index.
    memory.store(queue.next_used().to_le(), at, Ordering::Release)?;
    Ok(())
}

/// Whether the driver wants a notification for the used elements from `before` to `after` (virtio 1.2, 2.7.7 and
/// 2.7.10).
pub(super) fn wants_notification(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    before: Wrapping<u16>,
    after: Wrapping<u16>,
) -> Result<bool, VirtqueueError> {
    // The used index must be visible before the driver's flags are read.
    fence(Ordering::SeqCst);
    if queue.event_idx_enabled() {
        let used_event = AVAIL_RING + u64::from(queue.size()) * AVAIL_ELEMENT;
        let at = offset(queue.avail_ring(), used_event)?;
        let event = Wrapping(u16::from_le(memory.load(at, Ordering::Relaxed)?));
        Ok(after - event - Wrapping(1) < after - before)
    } else {
        let at = GuestAddress(queue.avail_ring());
        let flags = u16::from_le(memory.load(at, Ordering::Relaxed)?);
        Ok(flags & AVAIL_F_NO_INTERRUPT == 0)
    }
}

fn offset(base: u64, by: u64) -> Result<GuestAddress, VirtqueueError> {
    GuestAddress(base)
        .checked_add(by)
        .ok_or(VirtqueueError::Queue(virtio_queue::Error::AddressOverflow))
}
