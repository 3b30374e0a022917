// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest: its memory, and drivers that keep to nothing.
//!
//! What the device does with a queue is checked against what the queue says: it answers a request
//! once, claims to have written no more than there was room for, and writes nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;

use vhost_user_backend::VringT;
use vhost_user_backends::backend::Vring;
use vhost_user_backends::backend::fuzzing::{Descriptor, INDIRECT, NEXT, SplitQueue, WRITE};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

use crate::bytes::Bytes;

mod chains;
mod oracle;

/// The guest's memory as the device knows it.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Queues of a device, and most entries of each.
pub const QUEUES: usize = 2;
const MOST: u16 = 64;
const QUEUE_STRIDE: u64 = 0x900;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x600;
const USED_LEN: u64 = 6 + 8 * MOST as u64;

/// Where the first region begins: `virtio-queue` takes address 0 for no address.
const BASE: u64 = 0x1000;
/// Where requests, tables and responses are put.
const HEAP: Range<u64> = 0x2400..0x9000;
/// Regions: the second follows the first at once, the third does not.
pub const REGIONS: [(u64, usize); 3] = [(BASE, 0x8000), (0x9000, 0x8000), (0x2_0000, 0x4000)];

/// Buffers and entries of a table after which only the device looks on.
const MOST_BUFFERS: usize = 2000;
const MOST_ENTRIES: u32 = 0x200;
/// Readable bytes of a request that are searched for shared memory.
const MOST_SHARED: usize = 0x8000;

/// One driver's side of a queue.
struct Driver {
    queue: SplitQueue,
    next_descriptor: u16,
    /// Requests that were made and not answered, and the most room any had, by their head.
    outstanding: BTreeMap<u16, (u32, u64)>,
    /// The driver did something after which nobody can say what its requests are.
    lost: bool,
}

/// A request that was answered, on one of the queues.
#[derive(Clone, Copy)]
pub struct Answer {
    /// The queue.
    pub queue: usize,
    /// Where the first part of its chain lies.
    pub at: u64,
    /// How many bytes it claims to hold.
    pub len: u32,
}

/// The ranges that a request, from its readable bytes, lets the device write until it is reset.
pub type Shares = fn(&[u8]) -> Vec<Range<u64>>;

/// A guest with its drivers.
pub struct Guest {
    /// The memory that the device has.
    pub memory: Memory,
    /// The queues, as the device has them.
    pub vrings: Vec<Vring>,
    /// What was answered since this was emptied last.
    pub answers: Vec<Answer>,
    whole: GuestMemoryMmap,
    drivers: [Driver; QUEUES],
    heap: u64,
    before: Vec<(u64, Vec<u8>)>,
    /// Where the device may write.
    writable: Vec<Range<u64>>,
    /// Where it may write for requests that it took from memory that is there no more: what they are
    /// is known from the old memory, and their answers are written to the new one.
    taken: Vec<Range<u64>>,
    /// Where its indirect tables lie.
    tables: Vec<Range<u64>>,
    /// Which ranges a request shares with the device for good: those of a backing.
    shares: Shares,
    /// All ranges that requests have shared so far, as start and end.
    shared: BTreeSet<(u64, u64)>,
    /// A buffer lies over what describes it, or there are too many: nothing is checked any more until
    /// the queues begin anew.
    entangled: bool,
}

fn map(regions: &[(u64, usize)]) -> GuestMemoryMmap {
    let regions: Vec<_> = regions
        .iter()
        .map(|(at, len)| (GuestAddress(*at), *len))
        .collect();
    GuestMemoryMmap::from_ranges(&regions).expect("cannot map memory")
}

impl Guest {
    /// A guest whose queues have not begun.
    pub fn new() -> Self {
        Self::with(map(&REGIONS))
    }

    /// A guest whose memory is in a file.
    pub fn in_file(file: &File) -> Self {
        let mut offset = 0;
        let regions = REGIONS.map(|(at, len)| {
            let file = file.try_clone().expect("the host has descriptors left");
            let part = FileOffset::new(file, offset);
            offset += len as u64;
            (GuestAddress(at), len, Some(part))
        });
        let whole = GuestMemoryMmap::from_ranges_with_files(regions);
        Self::with(whole.expect("cannot map memory"))
    }

    fn with(whole: GuestMemoryMmap) -> Self {
        let memory = GuestMemoryAtomic::new(whole.clone());
        let vrings = (0..QUEUES)
            .map(|_| Vring::new(memory.clone(), 1024).expect("cannot make a queue"))
            .collect();
        let driver = |queue| Driver {
            queue: SplitQueue::new(Self::places(queue), MOST),
            next_descriptor: 0,
            outstanding: BTreeMap::new(),
            lost: false,
        };
        Self {
            memory,
            vrings,
            answers: Vec::new(),
            whole,
            drivers: [driver(0), driver(1)],
            heap: HEAP.start,
            before: Vec::new(),
            writable: Vec::new(),
            taken: Vec::new(),
            tables: Vec::new(),
            shares: |_| Vec::new(),
            shared: BTreeSet::new(),
            entangled: false,
        }
    }

    /// A guest whose requests share memory with the device.
    pub fn sharing(self, shares: Shares) -> Self {
        Self { shares, ..self }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let _ = self.whole.write_slice(bytes, GuestAddress(at));
    }

    /// What lies at `at`; 0 where there is nothing.
    pub fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.whole.read_slice(&mut bytes, GuestAddress(at));
        bytes
    }

    /// Fills memory that no queue lies in.
    pub fn fill(&mut self, bytes: &mut Bytes<'_>) {
        let at = 0x9000 + u64::from(bytes.u16() & 0x7fff);
        let byte = bytes.u8();
        let len = usize::from(bytes.u8()) * 16;
        self.write(at, &vec![byte; len]);
    }

    /// Starts the queues: those of a new driver at 0, those of a paused one where they were.
    pub fn start(&mut self, anew: bool, bytes: &mut Bytes<'_>) {
        let options = bytes.u8();
        for (driver, vring) in self.drivers.iter_mut().zip(&self.vrings) {
            if anew {
                driver.queue.size = [64, 16, 4, 1][usize::from(options & 3)];
                driver.next_descriptor = 0;
                driver.outstanding.clear();
                driver.lost = false;
                let start = if options & 4 == 0 { 0 } else { u16::MAX - 2 };
                for flags in [driver.queue.available, driver.queue.used] {
                    let _ = self.whole.write_slice(&[0; 2], GuestAddress(flags));
                }
                let _ = driver.queue.begin(&self.whole, start);
            }
            let queue = &driver.queue;
            vring.set_queue_size(queue.size);
            let _ = vring.set_queue_info(queue.descriptors, queue.available, queue.used);
            if anew {
                vring.set_queue_next_avail(queue.next_available);
            }
            // As SET_VRING_ADDR does, which fails where the ring lies outside the memory.
            vring.set_queue_next_used(vring.queue_used_idx().unwrap_or(queue.next_used));
            vring.set_queue_event_idx(options & 8 != 0);
            vring.set_queue_ready(true);
            vring.set_enabled(options & 0x30 != 0x30);
        }
        if anew {
            self.entangled = false;
            self.taken.clear();
        }
    }

    /// Stops a queue, as `GET_VRING_BASE` does.
    pub fn stop(&mut self, queue: usize) {
        self.vrings[queue].set_queue_ready(false);
    }

    /// Has the queue lie anywhere, and be of any size.
    pub fn misplace(&mut self, queue: usize, bytes: &mut Bytes<'_>) {
        let [base, available, used] = Self::places(queue);
        let mut place = |right: u64| match bytes.u8() {
            0..=99 => right,
            100..=199 => u64::from(bytes.u16()) << 4,
            _ => bytes.u64(),
        };
        let (table, avail, used) = (place(base), place(available), place(used));
        let _ = self.vrings[queue].set_queue_info(table, avail, used);
        self.vrings[queue].set_queue_size(bytes.u16() & 0x3ff);
        self.drivers[queue].lost = true;
        self.entangled = true;
    }

    /// Maps other memory than before: less, or the same again.
    pub fn remap(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.u8() % 5;
        if choice == 4 {
            self.before();
            // But for the used rings, which are where they are.
            self.writable.retain(|buffer| buffer.start >= HEAP.start);
            self.taken = std::mem::take(&mut self.writable);
            // New pages, which are all 0.
            self.whole = map(&REGIONS);
        }
        let mut other = self.whole.clone();
        let gone = match choice {
            1 => &REGIONS[1..],
            2 => &REGIONS[1..2],
            3 => &REGIONS[..],
            _ => &[],
        };
        for (at, len) in gone {
            let less = other.remove_region(GuestAddress(*at), *len as u64);
            (other, _) = less.expect("a region that there is");
        }
        if choice > 2 {
            self.drivers
                .iter_mut()
                .for_each(|driver| driver.lost = true);
        }
        self.memory
            .lock()
            .expect("nobody panics with it")
            .replace(other);
    }

    fn place(&mut self, len: u64) -> u64 {
        let len = len.next_multiple_of(16);
        if self.heap + len > HEAP.end {
            self.heap = HEAP.start;
        }
        let at = self.heap;
        self.heap += len;
        at
    }

    fn descriptor(&self, table: u64, index: u16, (at, len): (u64, u32), flags: u16, next: u16) {
        let descriptor = Descriptor {
            at,
            len,
            flags,
            next,
        };
        let _ = descriptor.write(&self.whole, table, index);
    }

    /// Makes the chain at `head` available, whatever lies there.
    pub fn publish(&mut self, queue: usize, head: u16) {
        let driver = &mut self.drivers[queue];
        // More than the queue has room for is what only a broken driver makes available.
        let full: u32 = driver.outstanding.values().map(|(count, _)| count).sum();
        if full >= driver.queue.size.into() {
            driver.lost = true;
        }
        driver.outstanding.entry(head).or_default().0 += 1;
        let _ = driver.queue.make_available(&self.whole, head);
    }

    /// How many more requests the queue has room for.
    pub fn room(&self, queue: usize) -> u16 {
        let driver = &self.drivers[queue];
        let made: u32 = driver.outstanding.values().map(|(count, _)| count).sum();
        driver.queue.size.saturating_sub(made as u16)
    }

    /// Makes a buffer of 8 bytes available, for the device to read them or to fill it, as a driver
    /// does that keeps to the rules: where there is room.
    pub fn offer(&mut self, queue: usize, bytes: Option<[u8; 8]>) {
        if self.room(queue) == 0 {
            return;
        }
        let driver = &self.drivers[queue];
        let (base, index) = (driver.queue.descriptors, driver.next_descriptor);
        let at = HEAP.start + 0x200 * queue as u64 + 8 * u64::from(index);
        let flags = if bytes.is_some() { 0 } else { WRITE };
        self.write(at, &bytes.unwrap_or_default());
        self.descriptor(base, index, (at, 8), flags, 0);
        let driver = &mut self.drivers[queue];
        driver.next_descriptor = (index + 1) % driver.queue.size;
        self.publish(queue, index);
    }

    /// Where the parts of a queue lie: descriptors, available and used ring.
    pub fn places(queue: usize) -> [u64; 3] {
        let base = BASE + queue as u64 * QUEUE_STRIDE;
        [base, base + AVAIL, base + USED]
    }

    /// Writes a descriptor of any content.
    pub fn scribble(&mut self, queue: usize, bytes: &mut Bytes<'_>) {
        let base = self.drivers[queue].queue.descriptors;
        let index = bytes.u8() % MOST as u8;
        let at = match bytes.u8() {
            0..=127 => BASE + u64::from(bytes.u16()),
            _ => bytes.u64(),
        };
        let part = (at, bytes.u32());
        let (flags, next) = (bytes.u8() & 7, bytes.u8());
        self.descriptor(base, index.into(), part, flags.into(), next.into());
    }

    /// Says that any number of requests were made.
    pub fn run_away(&mut self, queue: usize, bytes: &mut Bytes<'_>) {
        let driver = &mut self.drivers[queue];
        let available = driver.queue.next_available;
        let available = match bytes.u8() {
            by @ 0..=127 => available.wrapping_add(by.into()),
            by @ 128..=191 => available.wrapping_sub((by - 127).into()),
            _ => bytes.u16(),
        };
        driver.lost = true;
        let _ = driver.queue.set_available(&self.whole, available);
    }

    /// Says which notifications it wants.
    pub fn want(&mut self, queue: usize, bytes: &mut Bytes<'_>) {
        let driver = &self.drivers[queue].queue;
        let event = driver.available + 4 + u64::from(driver.size) * 2;
        self.write(driver.available, &bytes.u16().to_le_bytes());
        self.write(event, &bytes.u16().to_le_bytes());
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}
