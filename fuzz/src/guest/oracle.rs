//! What a device may do, and whether it did more.

use std::ops::Range;

use vm_memory::{Bytes as _, GuestMemoryBackend, GuestMemoryRegion};

use super::{
    Answer, Guest, HEAP, INDIRECT, MOST, MOST_BUFFERS, MOST_ENTRIES, NEXT, QUEUES, USED, USED_LEN,
    WRITE,
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
        self.entangled |= self.writable.iter().any(|buffer| {
            let meets = |table: &Range<u64>| table.start < buffer.end && buffer.start < table.end;
            buffer.start < HEAP.start || tables.iter().any(meets)
        });
        for driver in &self.drivers {
            let used = driver.base + USED;
            self.writable.push(used..used + USED_LEN);
        }
        self.before = self.snapshot();
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
        let (base, size) = (driver.base, driver.size);
        let (mut table, mut entries, mut index) = (base, u32::from(size), u32::from(head));
        let mut steps = entries;
        let mut is_indirect = false;
        let mut room: u64 = 0;
        while steps > 0 && index < entries {
            steps -= 1;
            let bytes: [u8; 16] = self.read(table + u64::from(index) * 16);
            let [
                a0,
                a1,
                a2,
                a3,
                a4,
                a5,
                a6,
                a7,
                l0,
                l1,
                l2,
                l3,
                f0,
                f1,
                n0,
                n1,
            ] = bytes;
            let at = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            let flags = u16::from_le_bytes([f0, f1]);
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
            }
            if flags & NEXT == 0 {
                break;
            }
            index = u16::from_le_bytes([n0, n1]).into();
        }
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
        let (base, size, lost) = (driver.base, driver.size, driver.lost);
        if lost || self.entangled {
            return;
        }
        let index = u16::from_le_bytes(self.read(base + USED + 2));
        while self.drivers[queue].used != index {
            let driver = &self.drivers[queue];
            let slot = u64::from(driver.used % size);
            let element: [u8; 8] = self.read(base + USED + 4 + slot * 8);
            let [h0, h1, h2, h3, l0, l1, l2, l3] = element;
            let head = u32::from_le_bytes([h0, h1, h2, h3]);
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            assert!(head < size.into(), "head {head} of {size} is answered");
            let driver = &mut self.drivers[queue];
            driver.used = driver.used.wrapping_add(1);
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
