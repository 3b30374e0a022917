// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), used correctly or in any wrong way.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use rustix::event::PollFlags;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{Deadline, Error, Memory, Result};
use buffer::{DESCRIPTOR_SIZE, descriptor};
use descriptor_flags::INDIRECT;

pub use buffer::{Buffer, Descriptor, descriptor_flags};

mod buffer;

/// A chain that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's first descriptor.
    pub head: u16,
    /// How many bytes the device says it wrote.
    pub len: u32,
}

/// Who a head in the available ring belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Not,
    /// A chain of [`Queue::add`] of this many descriptors, to be freed when used.
    Chain(u16),
    /// Descriptors that the caller wrote, and keeps.
    Raw,
}

/// The driver's side of a split virtqueue and its two eventfds.
#[derive(Debug)]
pub struct Queue {
    memory: Memory,
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    kick: EventFd,
    call: EventFd,
    event_idx: bool,
    free: BTreeSet<u16>,
    /// By head.
    offered: Vec<Offered>,
    /// By head: the descriptors of its chain. Kept, so that a running queue allocates nothing.
    chains: Vec<Vec<u16>>,
    /// By head: the address of an indirect table and how many descriptors fit.
    tables: Vec<(u64, u32)>,
    next_available: u16,
    published: u16,
    next_used: u16,
    notifications: u64,
}

impl Queue {
    /// A queue of `size` entries (a power of two, at most 32768) in freshly allocated `memory`.
    /// With `event_idx` it tells and honours event indices: to be given only if
    /// VIRTIO_F_EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// [`Error::Memory`], or as `eventfd(2)`.
    pub fn new(memory: &Memory, size: u16, event_idx: bool) -> Result<Self> {
        let entries = u64::from(size);
        let descriptors = memory.alloc(DESCRIPTOR_SIZE * entries, 16)?;
        let available = memory.alloc(6 + 2 * entries, 2)?;
        let used = memory.alloc(6 + 8 * entries, 4)?;
        let eventfd =
            || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::io("making an eventfd"));
        let slots = usize::from(size);
        Ok(Self {
            memory: memory.clone(),
            size,
            descriptors,
            available,
            used,
            kick: eventfd()?,
            call: eventfd()?,
            event_idx,
            free: (0..size).collect(),
            offered: vec![Offered::Not; slots],
            chains: vec![Vec::new(); slots],
            tables: vec![(0, 0); slots],
            next_available: 0,
            published: 0,
            next_used: 0,
            notifications: 0,
        })
    }

    /// Begins anew, as a driver that is loaded again: both rings empty, all indices 0, all
    /// descriptors free. The backend must have stopped the ring.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn reset(&mut self) -> Result<()> {
        let entries = usize::from(self.size);
        self.memory.fill(self.descriptors, 0, 16 * entries)?;
        self.memory.fill(self.available, 0, 6 + 2 * entries)?;
        self.memory.fill(self.used, 0, 6 + 8 * entries)?;
        self.free = (0..self.size).collect();
        self.offered.fill(Offered::Not);
        (self.next_available, self.published, self.next_used) = (0, 0, 0);
        self.read_call()?;
        self.notifications = 0;
        // Kicks nobody took.
        let _ = self.kick.read();
        Ok(())
    }

    /// How many entries it has.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The guest's memory it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The next index of the available ring.
    pub fn next_available(&self) -> u16 {
        self.next_available
    }

    /// Guest physical addresses of descriptor table, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.descriptors, self.available, self.used]
    }

    pub(crate) fn user_addresses(&self) -> [u64; 3] {
        self.addresses()
            .map(|address| self.memory.user_address(address))
    }

    /// What is written to notify the device.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.kick)
    }

    /// What the device writes to notify the driver.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.call)
    }

    /// Puts a chain of `buffers` into the available ring, not yet seen by the device: see
    /// [`Queue::publish`]. Gives its head.
    ///
    /// # Errors
    /// [`Error::QueueFull`]. The chain is not checked: writable pieces before readable ones, pieces
    /// of no length and addresses outside the memory are written as they are.
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<u16> {
        let chain = self.take_free(buffers.len())?;
        for (i, (&index, buffer)) in chain.iter().zip(buffers).enumerate() {
            let next = chain.get(i + 1).copied();
            self.write_descriptor(index, descriptor(buffer, next))?;
        }
        self.offer_chain(chain)
    }

    /// As [`Queue::add`], as one descriptor that points to a table: to be used only if
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    ///
    /// # Errors
    /// As [`Queue::add`], or [`Error::Memory`] for the table.
    pub fn add_indirect(&mut self, buffers: &[Buffer]) -> Result<u16> {
        let chain = self.take_free(1)?;
        let head = chain[0];
        let count = buffers.len() as u32;
        let (mut table, capacity) = self.tables[usize::from(head)];
        if capacity < count {
            table = self.memory.alloc(DESCRIPTOR_SIZE * u64::from(count), 16)?;
            self.tables[usize::from(head)] = (table, count);
        }
        let mut bytes = Vec::with_capacity(16 * buffers.len());
        for (i, buffer) in buffers.iter().enumerate() {
            let next = (i + 1 < buffers.len()).then_some(i as u16 + 1);
            bytes.extend_from_slice(&descriptor(buffer, next).bytes());
        }
        self.memory.write(table, &bytes)?;
        let len = bytes.len() as u32;
        let indirect = Descriptor {
            address: table,
            len,
            flags: INDIRECT,
            next: 0,
        };
        self.write_descriptor(head, indirect)?;
        self.offer_chain(chain)
    }

    /// Writes descriptor `index` of the table, whatever it says.
    ///
    /// # Errors
    /// [`Error::Memory`] for an index beyond the table's region.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        self.memory.write(
            self.descriptors + 16 * u64::from(index),
            &descriptor.bytes(),
        )
    }

    /// Puts any head into the available ring, one the table does not have included; its
    /// descriptors are the caller's. Not yet seen by the device: see [`Queue::publish`].
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn offer(&mut self, head: u16) -> Result<()> {
        if let Some(slot) = self.offered.get_mut(usize::from(head)) {
            *slot = Offered::Raw;
            self.free.remove(&head);
        }
        self.put_available(head)
    }

    /// Tells the device that the available ring ends at `index`, whatever it holds.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn force_available_index(&mut self, index: u16) -> Result<()> {
        (self.next_available, self.published) = (index, index);
        self.memory.store(self.available + 2, index.to_le())
    }

    /// Shows the device all that was added. Gives whether it wants a kick for that.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn publish(&mut self) -> Result<bool> {
        let old = self.published;
        self.published = self.next_available;
        self.memory
            .store(self.available + 2, self.published.to_le())?;
        // The index must be seen before the device's wish is read, or both sides sleep.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event: u16 = self.memory.load(self.used + 4 + 8 * u64::from(self.size))?;
            Ok(need_event(u16::from_le(event), self.published, old))
        } else {
            let flags: u16 = self.memory.load(self.used)?;
            Ok(u32::from(u16::from_le(flags)) & VRING_USED_F_NO_NOTIFY == 0)
        }
    }

    /// Notifies the device, wanted or not.
    ///
    /// # Errors
    /// As `write(2)` to an eventfd.
    pub fn kick(&self) -> Result<()> {
        self.kick.write(1).map_err(Error::io("kicking a queue"))
    }

    /// Shows the device all that was added and notifies it if it wants to be.
    ///
    /// # Errors
    /// As [`Queue::publish`] and [`Queue::kick`].
    pub fn submit(&mut self) -> Result<()> {
        if self.publish()? { self.kick() } else { Ok(()) }
    }

    /// Asks the device for no notifications, or for them again. With EVENT_IDX the device does not
    /// look at this.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn suppress_notifications(&self, suppress: bool) -> Result<()> {
        let flags = if suppress {
            VRING_AVAIL_F_NO_INTERRUPT as u16
        } else {
            0
        };
        self.memory.store(self.available, flags.to_le())
    }

    /// With EVENT_IDX: asks to be notified once the used index passes `index`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn set_used_event(&self, index: u16) -> Result<()> {
        self.memory
            .store(self.available + 4 + 2 * u64::from(self.size), index.to_le())
    }

    /// The device's used index: all that it ever used, modulo 2^16.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn used_index(&self) -> Result<u16> {
        Ok(u16::from_le(self.memory.load(self.used + 2)?))
    }

    /// The next used chain, if there is one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device used a chain it was not offered.
    pub fn take_used(&mut self) -> Result<Option<Used>> {
        if self.used_index()? == self.next_used {
            return Ok(None);
        }
        let slot = u64::from(self.next_used % self.size);
        let mut entry = [0; 8];
        self.memory.read(self.used + 4 + 8 * slot, &mut entry)?;
        let [a, b, c, d, len @ ..] = entry;
        let id = u32::from_le_bytes([a, b, c, d]);
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(id).ok().filter(|&head| head < self.size);
        let offered = head.map_or(Offered::Not, |head| self.offered[usize::from(head)]);
        let Some(head) = head.filter(|_| offered != Offered::Not) else {
            return Err(Error::Protocol(format!(
                "used chain {id}, which was not offered"
            )));
        };
        self.offered[usize::from(head)] = Offered::Not;
        match offered {
            Offered::Chain(_) => self.free.extend(&self.chains[usize::from(head)]),
            _ => {
                self.free.insert(head);
            }
        }
        Ok(Some(Used {
            head,
            len: u32::from_le_bytes(len),
        }))
    }

    /// Waits for the next used chain, sleeping until the device notifies.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, also if the device used a chain but did not notify; as
    /// [`Queue::take_used`].
    pub fn wait_used(&mut self, limit: Duration) -> Result<Used> {
        if let Some(used) = self.take_used()? {
            return Ok(used);
        }
        let deadline = Deadline::after(limit);
        loop {
            if self.event_idx {
                self.set_used_event(self.next_used)?;
                fence(Ordering::SeqCst);
            }
            if let Some(used) = self.take_used()? {
                return Ok(used);
            }
            // One that notifies without a pause, and uses nothing, is as late as one that is silent.
            if deadline.passed() || !deadline.ready(self.call_fd(), PollFlags::IN)? {
                let silent = match self.used_index()? == self.next_used {
                    true => "",
                    false => " (a chain was used, but no notification came)",
                };
                return Err(deadline.missed(format!("the device to use a chain{silent}")));
            }
            self.read_call()?;
        }
    }

    /// How often the device has notified so far.
    ///
    /// # Errors
    /// As `read(2)` from an eventfd.
    pub fn notifications(&mut self) -> Result<u64> {
        self.read_call()?;
        Ok(self.notifications)
    }

    /// How many chains were offered and not yet taken back.
    pub fn outstanding(&self) -> usize {
        self.offered.iter().filter(|o| **o != Offered::Not).count()
    }

    fn read_call(&mut self) -> Result<()> {
        match self.call.read() {
            Ok(n) => self.notifications += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::io("reading a call eventfd")(e)),
        }
        Ok(())
    }

    fn take_free(&mut self, wanted: usize) -> Result<Vec<u16>> {
        let free = self.free.len();
        if wanted == 0 || wanted > free {
            return Err(Error::QueueFull { free, wanted });
        }
        // The vector of the chain that had this head before is used again.
        let head = self.free.first().copied().unwrap_or(0);
        let mut chain = std::mem::take(&mut self.chains[usize::from(head)]);
        chain.clear();
        chain.extend(std::iter::from_fn(|| self.free.pop_first()).take(wanted));
        Ok(chain)
    }

    fn offer_chain(&mut self, chain: Vec<u16>) -> Result<u16> {
        let head = chain[0];
        self.offered[usize::from(head)] = Offered::Chain(chain.len() as u16);
        self.chains[usize::from(head)] = chain;
        self.put_available(head)?;
        Ok(head)
    }

    fn put_available(&mut self, head: u16) -> Result<()> {
        let slot = u64::from(self.next_available % self.size);
        self.memory
            .write(self.available + 4 + 2 * slot, &head.to_le_bytes())?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }
}

/// Whether the other side wants to know that the index went from `old` to `new` (virtio 1.2,
/// section 2.7.10).
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

pub(crate) fn borrow(fd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the eventfd's own, which lives at least as long as the borrow.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

#[cfg(test)]
mod tests;
