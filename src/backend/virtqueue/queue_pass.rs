//! One pass over a split virtqueue (virtio 1.2, 2.7), which publishes its used buffers once.
//!
//! `virtio-queue` stores the used index for each buffer, and ignores `VIRTQ_AVAIL_F_NO_INTERRUPT`. A pass
//! collects the used buffers instead: one store of the index and at most one notification for all of them.
//!
//! Devices limit the work of a pass in their `queue_turn.rs`: see `MAX_TURN_REQUESTS` and `MAX_TURN_TIME` of the GPU.

use std::num::Wrapping;
use std::ops::Deref;
use std::sync::atomic::{Ordering, fence};

use vhost_user_backend::VringT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap,
};

use super::vring::Vring;
use super::{Chain, GuestMemory, MemoryGuard};

/// Sizes and offsets within a split virtqueue, in bytes.
const DESCRIPTOR: u64 = 16;
const AVAIL_RING: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;
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

/// One pass over a virtqueue: take requests ([`QueuePass::pop`]), give them back ([`QueuePass::add_used`]), and
/// show that to the driver once ([`QueuePass::flush_used`]).
///
/// A pass has no limit of its own: bound its requests, bytes or time, so that the other virtqueues have their turn.
pub struct QueuePass<'a> {
    vring: &'a Vring,
    memory: MemoryGuard,
    /// Available requests that were seen and not taken yet.
    announced: u16,
    done: Vec<(u16, u32)>,
}

impl<'a> QueuePass<'a> {
    /// Begins a pass. `None` if the front-end has not started or not enabled the virtqueue, which must not be touched
    /// then, or shares no memory: used buffers could not be given back.
    pub fn begin(vring: &'a Vring, memory: &GuestMemory) -> Option<Self> {
        if !vring.is_usable() {
            return None;
        }
        let memory = memory.memory();
        (memory.num_regions() > 0).then(|| Self {
            vring,
            memory,
            announced: 0,
            done: Vec::new(),
        })
    }

    /// A last pass over a virtqueue that the front-end is stopping: used buffers can still be shown until it gets the
    /// answer.
    pub fn last(vring: &'a Vring, memory: &GuestMemory) -> Self {
        Self {
            vring,
            memory: memory.memory(),
            announced: 0,
            done: Vec::new(),
        }
    }

    /// How many requests are available.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory, or the driver offers more requests than it has entries.
    pub fn available(&self) -> Result<u16, VirtqueueError> {
        if self.vring.has_wrong_size() {
            return Err(VirtqueueError::Size);
        }
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        let entries = u64::from(queue.size());
        let parts = [
            (queue.desc_table(), entries * DESCRIPTOR),
            (queue.avail_ring(), AVAIL_RING + entries * AVAIL_ELEMENT),
            (queue.used_ring(), USED_RING + entries * USED_ELEMENT),
        ];
        // Checks all of it, at most 512 KiB each: a request that cannot be given back would be lost, and the
        // front-end may change the memory at any time.
        let lies_in_memory = parts
            .iter()
            .all(|(at, len)| self.memory.check_range(GuestAddress(*at), *len as usize));
        // Both rings at one address: the sanitizer moved a virtqueue from an impossible place.
        if !lies_in_memory || queue.avail_ring() == queue.used_ring() {
            return Err(VirtqueueError::Outside);
        }
        let index = queue.avail_idx(self.memory.deref(), Ordering::Acquire)?;
        let available = (index - Wrapping(queue.next_avail())).0;
        if available > queue.size() {
            return Err(virtio_queue::Error::InvalidAvailRingIndex.into());
        }
        Ok(available)
    }

    /// The guest's memory during this pass.
    pub fn memory(&self) -> &MemoryGuard {
        &self.memory
    }

    /// Takes the next request, if there is one.
    ///
    /// # Errors
    /// As [`QueuePass::available`]. Do not try again before the next kick: a broken virtqueue can claim to have
    /// requests for ever. Call [`QueuePass::flush_used`] all the same: requests given back before are the driver's.
    pub fn pop(&mut self) -> Result<Option<Chain>, VirtqueueError> {
        if self.announced == 0 {
            self.announced = self.available()?;
        }
        let Some(left) = self.announced.checked_sub(1) else {
            return Ok(None);
        };
        self.announced = left;
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        match queue.pop_descriptor_chain(self.memory.clone()) {
            Some(chain) => Ok(Some(chain)),
            // The front-end is stopping the virtqueue.
            None if !queue.ready() => Ok(None),
            // The driver took requests back, or placed the virtqueue at address 0, which `virtio-queue` refuses.
            None => Err(virtio_queue::Error::InvalidAvailRingIndex.into()),
        }
    }

    /// Undoes the last [`QueuePass::pop`]: the next pass takes the request again.
    pub fn undo_pop(&mut self) {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        queue.set_next_avail(queue.next_avail().wrapping_sub(1));
        self.announced = self.announced.saturating_add(1);
    }

    /// Gives the request with the head index `head` back, with `len` bytes written to its buffers. The driver
    /// sees it after [`QueuePass::flush_used`].
    ///
    /// A head index beyond the size of the virtqueue, which only a broken driver offers, is dropped.
    pub fn add_used(&mut self, head: u16, len: u32) {
        self.done.push((head, len));
    }

    /// Publishes all used buffers, and notifies the driver at most once, if it wants that.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory, or the notification cannot be sent.
    pub fn flush_used(&mut self) -> Result<(), VirtqueueError> {
        if self.done.is_empty() {
            return Ok(());
        }
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        self.done.retain(|(head, _)| *head < queue.size());
        let Some((last, rest)) = self.done.split_last() else {
            return Ok(());
        };
        let before = Wrapping(queue.next_used());
        let mut next = before;
        for (head, len) in rest {
            write_used(queue, &self.memory, next, *head, *len)?;
            next += 1;
        }
        queue.set_next_used(next.0);
        queue.add_used(self.memory.deref(), last.0, last.1)?;
        next += 1;
        self.done.clear();
        let wanted = wants_notification(queue, &self.memory, before, next)?;
        if wanted {
            state.signal_used_queue()?;
        }
        Ok(())
    }

    /// Asks for kicks after a pass took all requests. Returns `true` if more came meanwhile, without a kick:
    /// serve them now, or after a [`WakeEvent`](crate::backend::WakeEvent).
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory.
    pub fn enable_notification(&mut self) -> Result<bool, VirtqueueError> {
        let mut state = self.vring.get_mut();
        Ok(state
            .get_queue_mut()
            .enable_notification(self.memory.deref())?)
    }

    /// Asks for a kick when the driver adds to the `seen` available requests, which are too few. Returns `true`
    /// if it did so meanwhile, perhaps without a kick.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory.
    pub fn enable_notification_for_more(&mut self, seen: u16) -> Result<bool, VirtqueueError> {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        // With VIRTIO_F_EVENT_IDX the driver kicks when it passes the index that is written here; it has passed the
        // next one already.
        let next = queue.next_avail();
        queue.set_next_avail(next.wrapping_add(seen));
        let more = queue.enable_notification(self.memory.deref());
        queue.set_next_avail(next);
        Ok(more?)
    }

    /// Tells the driver not to kick until [`QueuePass::enable_notification`] or
    /// [`QueuePass::enable_notification_for_more`]. Some kicks may still come.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory.
    pub fn disable_notification(&mut self) -> Result<(), VirtqueueError> {
        let mut state = self.vring.get_mut();
        Ok(state
            .get_queue_mut()
            .disable_notification(self.memory.deref())?)
    }
}

fn write_used(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    index: Wrapping<u16>,
    head: u16,
    len: u32,
) -> Result<(), VirtqueueError> {
    let slot = u64::from(index.0.checked_rem(queue.size()).unwrap_or(0));
    let element = (u64::from(head) | u64::from(len) << 32).to_le_bytes();
    let at = offset(queue.used_ring(), USED_RING + slot * USED_ELEMENT)?;
    match memory.get_slice(at, element.len()) {
        Ok(slice) => slice.copy_from(&element),
        // It spans two regions, or is outside the guest's memory.
        Err(_) => memory.write_slice(&element, at)?,
    }
    Ok(())
}

/// Whether the driver wants a notification for the used elements from `before` to `after` (virtio 1.2, 2.7.7 and
/// 2.7.10).
fn wants_notification(
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

#[cfg(test)]
mod tests;
