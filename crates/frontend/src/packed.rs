// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's side of a packed virtqueue (virtio 1.2, section 2.8), as far as requests that are notified one by one.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use rustix::event::PollFlags;
use virtio_bindings::virtio_ring::{VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::queue::{Buffer, Used, borrow, descriptor_flags};
use crate::{Deadline, Error, Memory, Result};

const AVAILABLE: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
/// Size of a descriptor in bytes, and where its number and flags lie.
const DESCRIPTOR_SIZE: u64 = 16;
const ID_AT: u64 = 12;
const FLAGS_AT: u64 = 14;

/// A place in the ring, and how often it was passed: odd or even.
#[derive(Clone, Copy, Debug)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    /// As in SET_VRING_BASE.
    fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// The flags of a descriptor that was made available here.
    fn available(self) -> u16 {
        if self.wrap { AVAILABLE } else { USED }
    }

    /// The flags of one that was used here.
    fn used(self) -> u16 {
        if self.wrap { AVAILABLE | USED } else { 0 }
    }
}

/// The driver's side of a packed virtqueue and its two eventfds.
#[derive(Debug)]
pub struct PackedQueue {
    memory: Memory,
    size: u16,
    ring: u64,
    driver_event: u64,
    device_event: u64,
    kick: EventFd,
    call: EventFd,
    next: Position,
    used: Position,
    /// How many descriptors each request has, by its number; 0 for a number that is free.
    requests: Vec<u16>,
    free: u16,
}

impl PackedQueue {
    /// A queue of `size` entries in freshly allocated `memory`.
    ///
    /// # Errors
    /// [`Error::Memory`], or as `eventfd(2)`.
    pub fn new(memory: &Memory, size: u16) -> Result<Self> {
        let ring = memory.alloc(DESCRIPTOR_SIZE * u64::from(size), 16)?;
        let [driver_event, device_event] = [memory.alloc(4, 4)?, memory.alloc(4, 4)?];
        let eventfd =
            || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::io("making an eventfd"));
        let start = Position {
            index: 0,
            wrap: true,
        };
        Ok(Self {
            memory: memory.clone(),
            size,
            ring,
            driver_event,
            device_event,
            kick: eventfd()?,
            call: eventfd()?,
            next: start,
            used: start,
            requests: vec![0; usize::from(size)],
            free: size,
        })
    }

    /// How many entries it has.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// What SET_VRING_BASE tells: where the driver puts the next descriptor, and where the device uses the next one.
    pub fn base(&self) -> u32 {
        u32::from(self.next.bits()) | u32::from(self.used.bits()) << 16
    }

    /// Descriptor ring, driver's and device's event suppression, in the front-end's address space: in the places of a
    /// split queue's descriptor table, available ring and used ring.
    pub fn user_addresses(&self) -> [u64; 3] {
        [self.ring, self.driver_event, self.device_event].map(|at| self.memory.user_address(at))
    }

    /// What is written to notify the device.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.kick)
    }

    /// What the device writes to notify the driver.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.call)
    }

    /// Shows the device a chain of `buffers`, and notifies it. Gives the chain's number.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Memory`], or as `write(2)` to an eventfd.
    pub fn submit(&mut self, buffers: &[Buffer]) -> Result<u16> {
        let count = u16::try_from(buffers.len()).unwrap_or(u16::MAX);
        let id = self.requests.iter().position(|held| *held == 0);
        let Some(id) = id.filter(|_| count > 0 && count <= self.free) else {
            return Err(Error::QueueFull {
                free: self.free.into(),
                wanted: buffers.len(),
            });
        };
        let first = self.next;
        let mut first_flags = 0;
        for (n, buffer) in buffers.iter().enumerate() {
            let at = self.ring + DESCRIPTOR_SIZE * u64::from(self.next.index);
            let mut flags = self.next.available();
            if buffer.writable {
                flags |= descriptor_flags::WRITE;
            }
            if n + 1 < buffers.len() {
                flags |= descriptor_flags::NEXT;
            }
            self.memory.write(at, &buffer.address.to_le_bytes())?;
            self.memory.write(at + 8, &buffer.len.to_le_bytes())?;
            self.memory.write(at + ID_AT, &(id as u16).to_le_bytes())?;
            match n {
                0 => first_flags = flags,
                _ => self.memory.store(at + FLAGS_AT, flags.to_le())?,
            }
            self.next.advance(1, self.size);
        }
        // The device may look at the chain once the first one is there.
        let at = self.ring + DESCRIPTOR_SIZE * u64::from(first.index);
        self.memory.store(at + FLAGS_AT, first_flags.to_le())?;
        self.requests[id] = count;
        self.free -= count;
        fence(Ordering::SeqCst);
        self.kick.write(1).map_err(Error::io("kicking a queue"))?;
        Ok(id as u16)
    }

    fn take_used(&mut self) -> Result<Option<Used>> {
        let at = self.ring + DESCRIPTOR_SIZE * u64::from(self.used.index);
        let flags = u16::from_le(self.memory.load(at + FLAGS_AT)?);
        if flags & (AVAILABLE | USED) != self.used.used() {
            return Ok(None);
        }
        let mut entry = [0; 6];
        self.memory.read(at + 8, &mut entry)?;
        let [len @ .., a, b] = entry;
        let head = u16::from_le_bytes([a, b]);
        let held = self.requests.get_mut(usize::from(head));
        let Some(held) = held.filter(|held| **held > 0) else {
            return Err(Error::Protocol(format!(
                "used chain {head}, which was not offered"
            )));
        };
        let count = std::mem::take(held);
        self.used.advance(count, self.size);
        self.free += count;
        let len = u32::from_le_bytes(len);
        Ok(Some(Used { head, len }))
    }

    /// Waits for the next used chain, sleeping until the device notifies.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, also if the device used a chain but did not notify; [`Error::Protocol`] if the
    /// device used a chain that it was not offered.
    pub fn wait_used(&mut self, limit: Duration) -> Result<Used> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(used) = self.take_used()? {
                return Ok(used);
            }
            if deadline.passed() || !deadline.ready(self.call_fd(), PollFlags::IN)? {
                return Err(deadline.missed("the device to use a chain of a packed queue"));
            }
            // Nobody else reads it.
            self.call
                .read()
                .map_err(Error::io("reading a call eventfd"))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device does with a chain of `count` descriptors.
    fn use_chain(queue: &PackedQueue, position: &mut Position, count: u16, len: u32) {
        let at = queue.ring + DESCRIPTOR_SIZE * u64::from(position.index);
        let flags = u16::from_le(queue.memory.load(at + FLAGS_AT).unwrap());
        assert_eq!(flags & (AVAILABLE | USED), position.available());
        queue.memory.write(at + 8, &len.to_le_bytes()).unwrap();
        queue
            .memory
            .store(at + FLAGS_AT, position.used().to_le())
            .unwrap();
        position.advance(count, queue.size);
        queue.call.write(1).unwrap();
    }

    #[test]
    fn chains_go_round_the_ring() {
        let memory = Memory::with_size(1 << 16).unwrap();
        let mut queue = PackedQueue::new(&memory, 4).unwrap();
        let mut device = queue.next;
        let buffers = [Buffer::readable(1 << 30, 8), Buffer::writable(1 << 30, 8)];
        for round in 0..7 {
            let id = queue.submit(&buffers).unwrap();
            assert!(queue.take_used().unwrap().is_none());
            use_chain(&queue, &mut device, 2, round);
            let used = queue.wait_used(Duration::from_secs(5)).unwrap();
            assert_eq!((used.head, used.len), (id, round));
        }
        // Seven chains of two in four entries: three times round and a half, so that the flags mean the opposite.
        assert_eq!(queue.base(), 0x0002_0002);
        queue.submit(&buffers).unwrap();
        queue.submit(&buffers).unwrap();
        assert!(matches!(
            queue.submit(&buffers),
            Err(Error::QueueFull { free: 0, wanted: 2 })
        ));
    }
}
