// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A driver's side of a virtqueue, for tests of what a device does with it.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use vhost_user_backend::VringT;
use virtio_queue::QueueT as _;
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

use super::split_queue::{Descriptor, INDIRECT, NEXT, SplitQueue, WRITE};
use crate::backend::virtqueue::{GuestMemory, Positions, Vring};

/// Where the parts of a queue lie, from its base on.
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
const BUFFER_SIZE: u64 = 0x20;

/// Guest memory with room for queues at 0x1_0000, 0x2_0000 and so on.
pub(crate) fn guest_memory() -> GuestMemory {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1_0000), 0x8_0000)]);
    GuestMemoryAtomic::new(memory.expect("cannot map memory"))
}

/// A driver that fills one queue. Each of its requests is made of as many descriptors as the queue
/// has room for; it never waits.
pub(crate) struct Driver {
    pub(crate) vring: Vring,
    memory: GuestMemory,
    base: u64,
    queue: SplitQueue,
    next_descriptor: u16,
    calls: OwnedFd,
}

impl Driver {
    /// A queue of `size` entries, started and enabled, at `base`.
    pub(crate) fn new(memory: &GuestMemory, base: u64, size: u16) -> Self {
        let vring: Vring = Vring::new(memory.clone(), 256).expect("cannot make a queue");
        vring.set_queue_size(size);
        vring
            .set_queue_info(base, base + AVAIL, base + USED)
            .expect("cannot place a queue");
        let calls = eventfd(0, EventfdFlags::NONBLOCK).expect("cannot make an eventfd");
        let call = calls.try_clone().expect("cannot clone an eventfd");
        vring.set_call(Some(File::from(call)));
        vring.set_enabled(true);
        vring.set_queue_ready(true);
        Self {
            vring,
            memory: memory.clone(),
            base,
            queue: SplitQueue::new([base, base + AVAIL, base + USED], size),
            next_descriptor: 0,
            calls,
        }
    }

    /// The device's process died, and its successor, whose virtqueues' positions are in `positions`, is told again what the
    /// first one was told when the virtqueue began.
    pub(crate) fn resume(&mut self, positions: &Positions) {
        let vring: Vring = Vring::new(self.memory.clone(), 256).expect("cannot make a queue");
        let kept = vring.keep(0, positions);
        kept.expect("the record is of this version");
        let event_idx = self.vring.get_ref().get_queue().event_idx_enabled();
        self.vring = vring;
        self.vring.set_queue_event_idx(event_idx);
        self.vring.set_queue_size(self.queue.size);
        self.place();
        self.vring.set_queue_next_avail(0);
        let call = self.calls.try_clone().expect("cannot clone an eventfd");
        self.vring.set_call(Some(File::from(call)));
        self.vring.set_queue_ready(true);
        self.vring.set_enabled(true);
        positions.replay_done();
    }

    /// As [`Driver::resume`], for the virtqueue `index`, which is started if it `runs`.
    pub(crate) fn resume_at(&mut self, index: u32, positions: &Positions, runs: bool) {
        let vring: Vring = Vring::new(self.memory.clone(), 256).expect("cannot make a queue");
        let kept = vring.keep(index, positions);
        kept.expect("the record is of this version");
        self.vring = vring;
        self.vring.set_queue_size(self.queue.size);
        self.place();
        self.vring.set_queue_next_avail(0);
        let call = self.calls.try_clone().expect("cannot clone an eventfd");
        self.vring.set_call(Some(File::from(call)));
        self.vring.set_queue_ready(runs);
        self.vring.set_enabled(true);
    }

    /// Tells the device where the queue lies, as `vhost-user-backend` does.
    fn place(&self) {
        let base = self.base;
        let placed = self.vring.set_queue_info(base, base + AVAIL, base + USED);
        placed.expect("cannot place a queue");
        let used = self.vring.queue_used_idx();
        self.vring
            .set_queue_next_used(used.expect("outside the guest's memory"));
    }

    /// Makes a request of the buffers `parts`, each of a length and perhaps for the device to write,
    /// and returns its head.
    pub(crate) fn offer(&mut self, parts: &[(u32, bool)]) -> u16 {
        let first = self.next_descriptor;
        let heads: Vec<u16> = (first..)
            .take(parts.len())
            .map(|n| n % self.queue.size)
            .collect();
        for (n, (length, writable)) in parts.iter().enumerate() {
            let next = heads.get(n + 1).copied();
            let at = self.buffer(heads[n]);
            self.write_descriptor(self.base, heads[n], at, *length, *writable, next);
        }
        self.next_descriptor = first.wrapping_add(parts.len() as u16) % self.queue.size;
        self.make_available(heads[0]);
        heads[0]
    }

    /// The same, through an indirect table, the buffers one after the other.
    pub(crate) fn offer_indirect(&mut self, parts: &[(u32, bool)]) -> u16 {
        let head = self.next_descriptor;
        let table = self.base + TABLES + u64::from(head) * 0x100;
        let mut at = self.buffer(head);
        for (n, (length, writable)) in parts.iter().enumerate() {
            let next = (n + 1 < parts.len()).then_some(n as u16 + 1);
            self.write_descriptor(table, n as u16, at, *length, *writable, next);
            at += u64::from(*length);
        }
        let length = parts.len() as u32 * 16;
        self.write_descriptor(self.base, head, table, length, false, None);
        self.write(
            self.base + u64::from(head) * 16 + 12,
            &INDIRECT.to_le_bytes(),
        );
        self.next_descriptor = (head + 1) % self.queue.size;
        self.make_available(head);
        head
    }

    /// Offers `head` to the device, whatever it is.
    pub(crate) fn make_available(&mut self, head: u16) {
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        let made = self.queue.make_available(&memory, head);
        made.expect("outside the guest's memory");
    }

    /// Says that `index` requests were made since the queue began.
    pub(crate) fn set_available(&mut self, index: u16) {
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        let set = self.queue.set_available(&memory, index);
        set.expect("outside the guest's memory");
    }

    /// Puts the queue's indices where they are after 65535 requests.
    pub(crate) fn about_to_wrap(&mut self) {
        let index = u16::MAX;
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        let begun = self.queue.begin(&memory, index);
        begun.expect("outside the guest's memory");
        self.vring.set_queue_next_avail(index);
        self.vring.set_queue_next_used(index);
    }

    /// Does not want to be notified (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
    pub(crate) fn refuse_calls(&self) {
        self.write(self.base + AVAIL, &1u16.to_le_bytes());
    }

    /// Wants to be notified once the used index gets past `index` (`used_event`).
    pub(crate) fn want_call_after(&self, index: u16) {
        let at = self.base + AVAIL + 4 + u64::from(self.queue.size) * 2;
        self.write(at, &index.to_le_bytes());
    }

    /// How many notifications came since this was asked last.
    pub(crate) fn calls(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.calls, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    /// Whether the device wants kicks (no `VIRTQ_USED_F_NO_NOTIFY`).
    pub(crate) fn kicks_wanted(&self) -> bool {
        u16::from_le_bytes(self.read(self.base + USED)) == 0
    }

    /// The request that the device wants a kick for (`avail_event`).
    pub(crate) fn kick_wanted_at(&self) -> u16 {
        let at = self.base + USED + 4 + u64::from(self.queue.size) * 8;
        u16::from_le_bytes(self.read(at))
    }

    /// The requests done since this was asked last: their heads, and the bytes written.
    pub(crate) fn take_used(&mut self) -> Vec<(u32, u32)> {
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        let mut next = || self.queue.take_used(&memory);
        let done = std::iter::from_fn(|| next().expect("outside the guest's memory"));
        done.map(|used| (used.head, used.len)).collect()
    }

    /// Where the buffer of the descriptor `head` lies.
    pub(crate) fn buffer(&self, head: u16) -> u64 {
        self.base + BUFFERS + u64::from(head) * BUFFER_SIZE
    }

    /// What lies at `at` in the guest's memory.
    pub(crate) fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        memory
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("outside the guest's memory");
        bytes
    }

    /// Puts `bytes` at `at` in the guest's memory.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        memory
            .write_slice(bytes, GuestAddress(at))
            .expect("outside the guest's memory");
    }

    fn write_descriptor(
        &self,
        table: u64,
        index: u16,
        at: u64,
        length: u32,
        writable: bool,
        next: Option<u16>,
    ) {
        let flags = if writable { WRITE } else { 0 } | next.map_or(0, |_| NEXT);
        let descriptor = Descriptor {
            at,
            len: length,
            flags,
            next: next.unwrap_or(0),
        };
        let memory = vm_memory::GuestAddressSpace::memory(&self.memory);
        let written = descriptor.write(&memory, table, index);
        written.expect("outside the guest's memory");
    }
}
