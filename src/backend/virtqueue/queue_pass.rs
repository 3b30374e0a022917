//! One pass over a split virtqueue (virtio 1.2, 2.7) that shows its work to the driver once.
//!
//! `virtio-queue` publishes the used index for each buffer and asks for a notification without
//! looking at `VIRTQ_AVAIL_F_NO_INTERRUPT`. A pass gathers what is done instead: one store of the
//! used index and at most one notification for all of it.

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

/// Sizes and offsets of the split ring's parts, in bytes.
const DESCRIPTOR: u64 = 16;
const AVAIL_RING: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Why a ring cannot be used; the driver broke it.
#[derive(Debug, thiserror::Error)]
pub enum VirtqueueError {
    /// What `virtio-queue` found.
    #[error("the virtqueue is broken: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The driver chose a size that no split virtqueue has.
    #[error("the driver chose a size for the virtqueue that is no power of two")]
    Size,
    /// The ring, or a part of it, lies outside the guest's memory.
    #[error("the virtqueue lies outside the guest's memory")]
    Outside,
    /// An access to the ring failed.
    #[error("the virtqueue lies outside the guest's memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The front-end's eventfd does not take a notification.
    #[error("cannot notify the driver: {0}")]
    Notify(#[from] std::io::Error),
}

/// One pass over a queue that is started and enabled.
pub struct QueuePass<'a> {
    vring: &'a Vring,
    memory: MemoryGuard,
    /// Requests that the driver was seen to have made and that were not taken yet.
    announced: u16,
    done: Vec<(u16, u32)>,
}

impl<'a> QueuePass<'a> {
    /// Begins a pass; `None` where the front-end has not started or not enabled the queue, so that
    /// nothing of it may be touched, or shares no memory.
    pub fn begin(vring: &'a Vring, memory: &GuestMemory) -> Option<Self> {
        let state = vring.get_ref();
        let usable = state.is_enabled() && state.get_queue().ready();
        drop(state);
        let memory = memory.memory();
        (usable && memory.num_regions() > 0).then(|| Self {
            vring,
            memory,
            announced: 0,
            done: Vec::new(),
        })
    }

    /// A last pass over a queue that the front-end has just stopped: until it is told where the
    /// queue stands, what is done can still be shown.
    pub fn last(vring: &'a Vring, memory: &GuestMemory) -> Self {
        Self {
            vring,
            memory: memory.memory(),
            announced: 0,
            done: Vec::new(),
        }
    }

    /// Whether nothing was taken from the queue yet, as after the start of a driver. (Or 65536
    /// requests were, or a multiple of that: nobody can tell.)
    pub fn is_untouched(&self) -> bool {
        self.vring.get_ref().get_queue().next_avail() == 0
    }

    /// How many requests the driver has made that were not taken.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory, or the driver says that there are more than
    /// its queue can hold.
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
        // All of it, at most 512 KiB each: a request that is taken where it cannot be given back is
        // lost, and the front-end may change the memory at any time.
        let lies_in_memory = parts
            .iter()
            .all(|(at, len)| self.memory.check_range(GuestAddress(*at), *len as usize));
        // Where both rings lie in one place, the driver placed them where none can lie, see the proxy.
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

    /// The guest's memory for the length of this pass.
    pub fn memory(&self) -> &MemoryGuard {
        &self.memory
    }

    /// The driver's next request, or `None` where there is none.
    ///
    /// # Errors
    /// As [`QueuePass::available`]. Such a ring must not be asked again before the next kick: it would
    /// claim to have requests for ever.
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
            // The front-end stops the queue just now.
            None if !queue.ready() => Ok(None),
            // The driver takes its requests back, or has put the ring where `virtio-queue` does not
            // look (address 0).
            None => Err(virtio_queue::Error::InvalidAvailRingIndex.into()),
        }
    }

    /// Gives the last request taken back, to be found by the next pass.
    pub fn undo_pop(&mut self) {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        queue.set_next_avail(queue.next_avail().wrapping_sub(1));
        self.announced = self.announced.saturating_add(1);
    }

    /// Takes the request with the head `head` as done, `len` bytes written into it. The driver sees
    /// it after [`QueuePass::flush_used`].
    ///
    /// A head that the queue does not have, which only a broken driver makes available, cannot be
    /// given back; it does not keep the others from being.
    pub fn add_used(&mut self, head: u16, len: u32) {
        self.done.push((head, len));
    }

    /// Shows the driver all that is done, and notifies it at most once.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory, or the notification cannot be sent.
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

    /// Asks the driver for kicks again after a pass took all there was; `true` where more requests
    /// came meanwhile, for which no kick will come.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory.
    pub fn enable_notification(&mut self) -> Result<bool, VirtqueueError> {
        let mut state = self.vring.get_mut();
        Ok(state
            .get_queue_mut()
            .enable_notification(self.memory.deref())?)
    }

    /// Asks the driver for a kick once it adds to the `seen` requests that are there and not taken,
    /// because these are too few; `true` where it did so meanwhile, and perhaps without a kick.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory.
    pub fn enable_notification_for_more(&mut self, seen: u16) -> Result<bool, VirtqueueError> {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        // With VIRTIO_F_RING_EVENT_IDX the driver kicks when it gets past the request that is asked
        // for, and it is past the next one already.
        let next = queue.next_avail();
        queue.set_next_avail(next.wrapping_add(seen));
        let more = queue.enable_notification(self.memory.deref());
        queue.set_next_avail(next);
        Ok(more?)
    }

    /// Tells the driver that no kicks are needed until [`QueuePass::enable_notification`] or [`QueuePass::enable_notification_for_more`].
    /// Some may come nevertheless.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory.
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
        // It goes on in another region, if it is the guest's at all.
        Err(_) => memory.write_slice(&element, at)?,
    }
    Ok(())
}

/// Whether the driver wants to hear of the used elements from `before` up to `after` (virtio 1.2,
/// 2.7.7 and 2.7.10).
fn wants_notification(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    before: Wrapping<u16>,
    after: Wrapping<u16>,
) -> Result<bool, VirtqueueError> {
    // The used index must be visible before the driver's wish is read.
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
