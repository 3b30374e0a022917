// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One pass over a split virtqueue (virtio 1.2, 2.7), which publishes its used buffers once.
//!
//! `virtio-queue` stores the used index for each buffer, and ignores `VIRTQ_AVAIL_F_NO_INTERRUPT`. A pass
//! writes the used elements, and publishes them later: one store of the index and at most one notification for all of
//! them. Where the state is kept for a successor, requests are done once their used elements are written and the virtqueue's
//! position is recorded: see [`QueuePass::commit`].
//!
//! Devices limit the work of a pass in their `queue_turn.rs`: see `MAX_TURN_REQUESTS` and `MAX_TURN_TIME` of the GPU.

use std::num::Wrapping;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use vhost_user_backend::VringT;
use virtio_queue::{DescriptorChain, QueueOwnedT as _, QueueT as _};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap};

use super::rings::{
    AVAIL_ELEMENT, AVAIL_RING, DESCRIPTOR, USED_ELEMENT, USED_RING, VirtqueueError, publish_used,
    used_element, wants_notification, write_used,
};
use super::vring::Vring;
use super::{Chain, GuestMemory, MemoryGuard};

/// Most requests whose used elements are written at once.
const BATCH: usize = 32;

/// One pass over a virtqueue: take requests ([`QueuePass::pop`]), give them back ([`QueuePass::add_used`]), and
/// show that to the driver once ([`QueuePass::flush_used`]).
///
/// A pass has no limit of its own: bound its requests, bytes or time, so that the other virtqueues have their turn.
pub struct QueuePass<'a> {
    vring: &'a Vring,
    memory: MemoryGuard,
    /// Available requests that were seen and not taken yet.
    announced: u16,
    /// Used elements that are written and not published yet.
    unpublished: u32,
    /// Requests that were given back and are not committed yet.
    uncommitted: u16,
    /// Why a used element could not be written. Those after it are not written either: the driver would find a gap.
    error: Option<VirtqueueError>,
}

impl<'a> QueuePass<'a> {
    /// Begins a pass. `None` if the front-end has not started or not enabled the virtqueue, which must not be touched
    /// then, or shares no memory: used buffers could not be given back.
    pub fn begin(vring: &'a Vring, memory: &GuestMemory) -> Option<Self> {
        if !vring.is_usable() {
            return None;
        }
        let memory = memory.memory();
        (memory.num_regions() > 0).then(|| Self::new(vring, memory))
    }

    /// A last pass over a virtqueue that the front-end is stopping: used buffers can still be shown until it gets the
    /// answer.
    pub fn last(vring: &'a Vring, memory: &GuestMemory) -> Self {
        Self::new(vring, memory.memory())
    }

    fn new(vring: &'a Vring, memory: MemoryGuard) -> Self {
        Self {
            vring,
            memory,
            announced: 0,
            unpublished: 0,
            uncommitted: 0,
            error: None,
        }
    }

    /// How many requests are available.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory, or the driver offers more requests than it has entries.
    pub fn available(&mut self) -> Result<u16, VirtqueueError> {
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
        drop(state);
        self.announced = available;
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
            self.available()?;
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
    /// Where the state is kept, the request is done at the next [`QueuePass::commit`]. So requests are given back in the order
    /// in which they were taken, each after its response is written and its records are put.
    ///
    /// A head index beyond the size of the virtqueue, which only a broken driver offers, is dropped. What keeps the used
    /// ring from being written is an error of [`QueuePass::flush_used`].
    pub fn add_used(&mut self, head: u16, len: u32) {
        if self.error.is_some() {
            return;
        }
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        if head < queue.size() {
            let index = Wrapping(queue.next_used());
            let element = used_element(head, len);
            if let Err(error) = write_used(queue, &self.memory, index, &[element]) {
                self.error = Some(error);
                return;
            }
            queue.set_next_used((index + Wrapping(1)).0);
            self.unpublished += 1;
        }
        self.uncommitted = self.uncommitted.wrapping_add(1);
    }

    /// Takes the next `count` requests and gives each back, with as many bytes as `serve` wrote to its buffers: what
    /// [`QueuePass::pop`] and [`QueuePass::add_used`] do, with one lock and one look at the rings for many. Returns how many
    /// requests that were; fewer if there are no more, or the front-end is stopping the virtqueue.
    ///
    /// # Errors
    /// As [`QueuePass::pop`]. The requests that were served before are given back.
    pub fn serve_next(
        &mut self,
        count: u16,
        mut serve: impl FnMut(&mut DescriptorChain<&GuestMemoryMmap>, &GuestMemoryMmap) -> u32,
    ) -> Result<u16, VirtqueueError> {
        let mut served = 0;
        while served < count {
            if self.announced == 0 {
                self.available()?;
            }
            let wanted = self.announced.min(count - served).min(BATCH as u16);
            if wanted == 0 {
                break;
            }
            let taken = self.serve_batch(wanted, &mut serve)?;
            served += taken;
            if taken < wanted {
                break;
            }
        }
        Ok(served)
    }

    /// As [`QueuePass::serve_next`], for up to [`BATCH`] requests that were seen.
    fn serve_batch(
        &mut self,
        count: u16,
        mut serve: impl FnMut(&mut DescriptorChain<&GuestMemoryMmap>, &GuestMemoryMmap) -> u32,
    ) -> Result<u16, VirtqueueError> {
        let memory: &GuestMemoryMmap = &self.memory;
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let size = queue.size();
        let is_ready = queue.ready();
        let mut elements = [[0; USED_ELEMENT as usize]; BATCH];
        let mut used = 0;
        let mut taken = 0;
        match queue.iter(memory) {
            Ok(chains) => {
                for mut chain in chains.take(count.into()) {
                    let head = chain.head_index();
                    let len = serve(&mut chain, memory);
                    taken += 1;
                    if let Some(element) = elements.get_mut(used).filter(|_| head < size) {
                        *element = used_element(head, len);
                        used += 1;
                    }
                }
            }
            // The front-end is stopping the virtqueue.
            Err(_) if !is_ready => return Ok(0),
            Err(_) => return Err(virtio_queue::Error::InvalidAvailRingIndex.into()),
        }
        self.announced = self.announced.saturating_sub(taken);
        if self.error.is_none() {
            let index = Wrapping(queue.next_used());
            let elements = elements.get(..used).unwrap_or_default();
            match write_used(queue, memory, index, elements) {
                Ok(()) => {
                    queue.set_next_used((index + Wrapping(used as u16)).0);
                    self.unpublished += used as u32;
                    self.uncommitted = self.uncommitted.wrapping_add(taken);
                }
                Err(error) => self.error = Some(error),
            }
        }
        match taken == count {
            true => Ok(taken),
            // The driver took requests back.
            false => Err(virtio_queue::Error::InvalidAvailRingIndex.into()),
        }
    }

    /// The requests that were given back are done, where the state is kept: all records of the device that were put until
    /// now become valid, together with the virtqueue's position. A process that dies before executes the requests since the
    /// last commit again, from the state before them; one that dies after it publishes them.
    ///
    /// [`QueuePass::flush_used`] commits too. A device that may not execute some requests again together commits between
    /// them.
    pub fn commit(&mut self) {
        let done = std::mem::take(&mut self.uncommitted);
        if done != 0 {
            let state = self.vring.get_ref();
            self.vring.record_done(state.get_queue(), done);
        }
    }

    /// [`QueuePass::commit`] if the device put or removed a record since the last one. What a request changes without a
    /// record, such as pixels, is changed in the same way again.
    pub fn commit_changes(&mut self) {
        if self.vring.has_uncommitted_records() {
            self.commit();
        }
    }

    /// Commits, publishes all used buffers, and notifies the driver at most once, if it wants that.
    ///
    /// # Errors
    /// If the virtqueue is outside the guest's memory, or the notification cannot be sent.
    pub fn flush_used(&mut self) -> Result<(), VirtqueueError> {
        self.commit();
        let count = std::mem::take(&mut self.unpublished);
        if count != 0 {
            let state = self.vring.get_mut();
            let queue = state.get_queue();
            publish_used(queue, &self.memory)?;
            let next = Wrapping(queue.next_used());
            if wants_notification(queue, &self.memory, next - Wrapping(count as u16), next)? {
                state.signal_used_queue()?;
            }
        }
        self.error.take().map_or(Ok(()), Err)
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

#[cfg(test)]
mod tests;
