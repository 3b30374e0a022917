//! One pass over a split virtqueue (virtio 1.2, 2.7) that shows its work to the driver once.
//!
//! `virtio-queue` publishes the used index for each buffer and asks for a notification without
//! looking at `VIRTQ_AVAIL_F_NO_INTERRUPT`. A pass gathers what is done instead: one store of the
//! used index and at most one notification for all of it.

use std::num::Wrapping;
use std::ops::Deref;
use std::sync::atomic::{Ordering, fence};

use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard,
    GuestMemoryMmap,
};

/// The guest's memory as the front-end shared it last.
pub type GuestMemory = GuestMemoryAtomic<GuestMemoryMmap>;
/// The guest's memory, held as it was when a pass began.
pub type MemoryGuard = GuestMemoryLoadGuard<GuestMemoryMmap>;
/// A request of the driver.
pub type Chain = DescriptorChain<MemoryGuard>;

/// Sizes and offsets of the split ring's parts, in bytes.
const AVAIL_RING: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Why a ring cannot be used; the driver broke it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// What `virtio-queue` found.
    #[error("the virtqueue is broken: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// A part of the ring lies outside the guest's memory.
    #[error("the virtqueue lies outside the guest's memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The front-end's eventfd does not take a notification.
    #[error("cannot notify the driver: {0}")]
    Notify(#[from] std::io::Error),
}

/// One pass over a queue that is started and enabled.
pub struct Ring<'a> {
    vring: &'a VringMutex,
    memory: MemoryGuard,
    done: Vec<(u16, u32)>,
}

impl<'a> Ring<'a> {
    /// Begins a pass; `None` where the front-end has not started or not enabled the queue, so that
    /// nothing of it may be touched.
    pub fn begin(vring: &'a VringMutex, memory: &GuestMemory) -> Option<Self> {
        let state = vring.get_ref();
        let usable = state.is_enabled() && state.get_queue().ready();
        drop(state);
        usable.then(|| Self {
            vring,
            memory: memory.memory(),
            done: Vec::new(),
        })
    }

    /// The guest's memory for the length of this pass.
    pub fn memory(&self) -> &MemoryGuard {
        &self.memory
    }

    /// The driver's next request, or `None` where there is none (or the ring is broken, which
    /// `virtio-queue` reports to the log).
    pub fn next_chain(&mut self) -> Option<Chain> {
        let mut state = self.vring.get_mut();
        state
            .get_queue_mut()
            .pop_descriptor_chain(self.memory.clone())
    }

    /// Gives the last request taken back, to be found by the next pass.
    pub fn put_back(&mut self) {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        queue.set_next_avail(queue.next_avail().wrapping_sub(1));
    }

    /// Takes the request with the head `head` as done, `len` bytes written into it. The driver sees
    /// it after [`Ring::publish`].
    pub fn complete(&mut self, head: u16, len: u32) {
        self.done.push((head, len));
    }

    /// Shows the driver all that is done, and notifies it at most once.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory, or the notification cannot be sent.
    pub fn publish(&mut self) -> Result<(), RingError> {
        let Some((last, rest)) = self.done.split_last() else {
            return Ok(());
        };
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
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
    pub fn rearm(&mut self) -> Result<bool, RingError> {
        let mut state = self.vring.get_mut();
        Ok(state
            .get_queue_mut()
            .enable_notification(self.memory.deref())?)
    }
}

fn write_used(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    index: Wrapping<u16>,
    head: u16,
    len: u32,
) -> Result<(), RingError> {
    if head >= queue.size() {
        return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
    }
    let slot = u64::from(index.0.checked_rem(queue.size()).unwrap_or(0));
    let element = (u64::from(head) | u64::from(len) << 32).to_le();
    let at = offset(queue.used_ring(), USED_RING + slot * USED_ELEMENT)?;
    Ok(memory.write_obj(element, at)?)
}

/// Whether the driver wants to hear of the used elements from `before` up to `after` (virtio 1.2,
/// 2.7.7 and 2.7.10).
fn wants_notification(
    queue: &Queue,
    memory: &GuestMemoryMmap,
    before: Wrapping<u16>,
    after: Wrapping<u16>,
) -> Result<bool, RingError> {
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

fn offset(base: u64, by: u64) -> Result<GuestAddress, RingError> {
    GuestAddress(base)
        .checked_add(by)
        .ok_or(RingError::Queue(virtio_queue::Error::AddressOverflow))
}
