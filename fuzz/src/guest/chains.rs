// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chains of descriptors, right and broken in many ways.

use super::{BASE, Guest, HEAP, INDIRECT, NEXT, WRITE};
use crate::bytes::Bytes;

/// Room of a response: its header alone, GET_EDID's and GET_DISPLAY_INFO's.
const HEADER_SIZE: u64 = 24;
const EDID_SIZE: u64 = HEADER_SIZE + 8 + 1024;
const DISPLAY_INFO_SIZE: u64 = HEADER_SIZE + 16 * 24;

impl Guest {
    /// Makes `request` available in a chain of any shape.
    pub fn submit(&mut self, queue: usize, request: &[u8], bytes: &mut Bytes<'_>) {
        let shape = bytes.u8();
        let mut request = request;
        if shape & 0xc0 == 0xc0 {
            let cut = usize::from(bytes.u8());
            request = &request[..request.len().saturating_sub(cut)];
        }
        let room: u64 = match shape & 7 {
            0..=3 => HEADER_SIZE,
            4 => EDID_SIZE,
            5 => DISPLAY_INFO_SIZE,
            6 => 0,
            _ => bytes.u16().into(),
        };
        let mut parts = Vec::new();
        let mut at = self.place(request.len() as u64);
        self.write(at, request);
        let mut left = request.len();
        let mut pieces = if shape & 8 == 0 {
            1
        } else {
            bytes.u8() % 8 + 1
        };
        while left > 0 || pieces > 0 {
            pieces = pieces.saturating_sub(1);
            let len = match pieces {
                0 => left,
                _ => usize::from(bytes.u8()).min(left),
            };
            parts.push((at, len as u32, 0));
            at += len as u64;
            left -= len;
        }
        let mut at = self.place(room.min(HEAP.end - HEAP.start));
        let mut left = room as u32;
        let mut pieces = if shape & 8 == 0 {
            1
        } else {
            bytes.u8() % 4 + 1
        };
        while left > 0 {
            pieces = u8::saturating_sub(pieces, 1);
            let len = match pieces {
                0 => left,
                _ => u32::from(bytes.u8()).min(left),
            };
            parts.push((at, len, WRITE));
            at += u64::from(len);
            left -= len;
        }
        let indirect = shape & 0x10 != 0;
        let twist = if shape & 0x20 == 0 { 0 } else { bytes.u8() };
        Self::twist(twist, &mut parts, bytes);
        self.chain(queue, &parts, indirect, twist, bytes);
    }

    /// Breaks a chain in one of many ways.
    fn twist(twist: u8, parts: &mut [(u64, u32, u16)], bytes: &mut Bytes<'_>) {
        let which = usize::from(bytes_if(twist, bytes));
        let Some(count) = parts.len().checked_sub(1) else {
            return;
        };
        let which = which % (count + 1);
        match twist % 10 {
            // For the device to write first, and to read.
            1 => parts.reverse(),
            2 => parts.swap(0, which),
            // Outside of the memory, or across its end.
            3 => parts[which].0 = bytes.u64(),
            4 => parts[which].0 = 0x1_0ff8,
            5 => parts[which].1 = bytes.u32(),
            6 => parts[which].2 ^= WRITE,
            7 => parts[which].1 = 0,
            8 => parts[which].0 = BASE + u64::from(bytes.u16()),
            _ => {}
        }
    }

    fn chain(
        &mut self,
        queue: usize,
        parts: &[(u64, u32, u16)],
        indirect: bool,
        twist: u8,
        bytes: &mut Bytes<'_>,
    ) {
        let driver = &self.drivers[queue];
        let (base, size) = (driver.queue.descriptors, driver.queue.size);
        let first = driver.next_descriptor;
        let entries = parts.len() as u16;
        let count = if indirect { 1 } else { entries };
        let table = if indirect {
            self.place(u64::from(entries) * 16)
        } else {
            base
        };
        let slot = |n: u16| {
            if indirect {
                n
            } else {
                first.wrapping_add(n) % size
            }
        };
        for (n, (at, len, flags)) in (0..).zip(parts) {
            let last = n + 1 == entries;
            let (mut flags, mut next) = (*flags, slot(n + 1));
            if !last {
                flags |= NEXT;
            } else if twist / 10 == 1 {
                // A loop.
                flags |= NEXT;
                next = slot(0);
            } else if twist / 10 == 2 {
                flags |= NEXT;
                next = bytes.u16();
            } else if twist / 10 == 3 {
                flags |= INDIRECT;
            }
            self.descriptor(table, slot(n), (*at, *len), flags, next);
        }
        if indirect {
            let len = match twist / 10 {
                4 => bytes.u32(),
                5 => u32::from(entries) * 16 + 7,
                _ => u32::from(entries) * 16,
            };
            let flags = if twist / 10 == 6 {
                INDIRECT | WRITE
            } else {
                INDIRECT
            };
            self.descriptor(base, first % size, (table, len), flags, 0);
        }
        self.drivers[queue].next_descriptor = first.wrapping_add(count.max(1)) % size;
        let head = if twist / 10 == 7 {
            bytes.u16()
        } else {
            first % size
        };
        self.publish(queue, head);
    }
}

fn bytes_if(twist: u8, bytes: &mut Bytes<'_>) -> u8 {
    if twist == 0 { 0 } else { bytes.u8() }
}
