// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device may do with the queues, and checks that it did no more.

use std::ops::Range;

use vhost_user_backends::backend::fuzzing::{Descriptor, Used};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{
    Answer, Guest, HEAP, INDIRECT, MOST, MOST_BUFFERS, MOST_ENTRIES, MOST_SHARED, NEXT, QUEUES,
    USED_LEN, WRITE,
};

impl Guest {
    /// Notes what the device may do from now on. Before the device has its turn.
    pub fn before(&mut self) {
        self.writable.clear();
        self.tables.clear();
        if self.entangled {
            return;
        }
        for queue in 0..QUEUES {
            let driver = &self.drivers[queue];
            let heads: Vec<u16> = if driver.lost {
                (0..MOST).collect()
            } else {
                driver.outstanding.keys().copied().collect()
            };
            for head in heads {
                let room = self.walk(queue, head);
                if let Some((_, known)) = self.drivers[queue].outstanding.get_mut(&head) {
                    *known = room.max(*known);
                }
            }
        }
        if self.writable.len() > MOST_BUFFERS {
            self.entangled = true;
            return;
        }
        let tables = &self.tables;
        self.writable.extend_from_slice(&self.taken);
        let shared = self.shared.iter().map(|(start, end)| *start..*end);
        self.writable.extend(shared);
        self.entangled |= self.writable.iter().any(|buffer| {
            let meets = |table: &Range<u64>| table.start < buffer.end && buffer.start < table.end;
            buffer.start < HEAP.start || tables.iter().any(meets)
        });
        for driver in &self.drivers {
            let used = driver.queue.used;
            self.writable.push(used..used + USED_LEN);
        }
        self.before = self.snapshot();
    }

    /// All memory, region by region: where it begins, and its bytes.
    pub fn contents(&self) -> Vec<(u64, Vec<u8>)> {
        self.snapshot()
    }

    fn snapshot(&self) -> Vec<(u64, Vec<u8>)> {
        self.whole
            .iter()
            .map(|region| {
                let start = region.start_addr();
                let mut bytes = vec![0; region.len() as usize];
                let read = self.whole.read_slice(&mut bytes, start);
                read.expect("a region lies in memory");
                (start.0, bytes)
            })
            .collect()
    }

    /// Notes where the device may write for the request at `head`; how much room there is.
    fn walk(&mut self, queue: usize, head: u16) -> u64 {
        let driver = &self.drivers[queue];
        let (base, size) = (driver.queue.descriptors, driver.queue.size);
        let (mut table, mut entries, mut index) = (base, u32::from(size), u32::from(head));
        let mut steps = entries;
        let mut is_indirect = false;
        let mut room: u64 = 0;
        let mut request = Vec::new();
        while steps > 0 && index < entries {
            steps -= 1;
            let bytes: [u8; 16] = self.read(table + u64::from(index) * 16);
            let Descriptor {
                at,
                len,
                flags,
                next,
            } = Descriptor::from_bytes(bytes);
            if flags & INDIRECT != 0 && !is_indirect {
                is_indirect = true;
                (table, entries, index) = (at, len / 16, 0);
                steps = entries.min(MOST_ENTRIES);
                self.entangled |= entries > MOST_ENTRIES;
                self.tables.push(at..at.saturating_add(len.into()));
                continue;
            }
            if flags & WRITE != 0 {
                room = room.saturating_add(len.into());
                self.writable.push(at..at.saturating_add(len.into()));
            } else if request.len() < MOST_SHARED {
                let mut part = vec![0; (len as usize).min(MOST_SHARED)];
                let read = self.whole.read(&mut part, GuestAddress(at));
                part.truncate(read.unwrap_or(0));
                request.extend(part);
            }
            if flags & NEXT == 0 {
                break;
            }
            index = next.into();
        }
        let shares = (self.shares)(&request);
        self.shared
            .extend(shares.into_iter().map(|range| (range.start, range.end)));
        room
    }

    /// Checks what the device did.
    pub fn after(&mut self) {
        for queue in 0..QUEUES {
            self.check_used(queue);
        }
        if self.entangled {
            return;
        }
        for ((start, old), (_, new)) in self.before.iter().zip(self.snapshot()) {
            if *old == new {
                continue;
            }
            for (at, (old, new)) in (*start..).zip(old.iter().zip(new)) {
                let allowed = *old == new || self.writable.iter().any(|range| range.contains(&at));
                assert!(
                    allowed,
                    "the device wrote to {at:#x}, which is not its to write"
                );
            }
        }
    }

    fn check_used(&mut self, queue: usize) {
        let driver = &self.drivers[queue];
        let (base, size) = (driver.queue.descriptors, driver.queue.size);
        if driver.lost || self.entangled {
            return;
        }
        loop {
            let driver = &mut self.drivers[queue];
            let used = driver.queue.take_used(&self.whole);
            let Some(Used { head, len }) = used.expect("the rings lie in memory") else {
                return;
            };
            assert!(head < size.into(), "head {head} of {size} is answered");
            let head = head as u16;
            let made = driver.outstanding.get_mut(&head);
            let (count, room) = made.expect("a request is answered that was not made, or twice");
            assert!(
                u64::from(len) <= *room,
                "{len} bytes are said to be in a buffer of {room}"
            );
            *count -= 1;
            if *count == 0 {
                driver.outstanding.remove(&head);
            }
            let at = u64::from_le_bytes(self.read(base + u64::from(head) * 16));
            self.answers.push(Answer { queue, at, len });
        }
    }

    /// Whether what is in the queue is what the driver put there.
    pub fn is_sound(&self, queue: usize) -> bool {
        !self.drivers[queue].lost && !self.entangled
    }
}
