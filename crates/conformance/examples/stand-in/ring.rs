// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device's side of a virtqueue, split or packed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{Ordering, fence};

use crate::devices::{Chain, Device};
use crate::fault;
use crate::memory::{Broken, Memory};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// VIRTIO_F_RING_PACKED, and the flags of its descriptors.
pub(crate) const PACKED: u64 = 1 << 34;
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const WRAP: u16 = 1 << 15;

#[derive(Default)]
pub(crate) struct Ring {
    pub(crate) size: u16,
    /// The next index of the available ring; of a packed one the next place, and its wrap counter in bit 15.
    pub(crate) next: u16,
    /// Of a packed one: the place at which the next descriptor is used, in the same way.
    pub(crate) used: u16,
    /// Descriptors, available, used: guest physical addresses.
    pub(crate) places: Option<[u64; 3]>,
    pub(crate) kick: Option<File>,
    pub(crate) call: Option<File>,
    pub(crate) enabled: bool,
    pub(crate) started: bool,
    pub(crate) was_disabled: bool,
    broken: bool,
}

impl Ring {
    pub(crate) fn begin(&mut self) {
        self.started = true;
        self.broken = false;
    }

    /// Takes a kick.
    pub(crate) fn drain(&mut self) {
        if let Some(kick) = &mut self.kick {
            let _ = kick.read(&mut [0; 8]);
        }
    }

    pub(crate) fn serve(
        &mut self,
        memory: &Memory,
        features: u64,
        index: usize,
        device: &mut dyn Device,
    ) {
        let is_enabled = self.enabled || self.was_disabled && fault("protocol/disabled");
        if self.broken || !self.started || !is_enabled {
            return;
        }
        if self.was_disabled && fault("protocol/disable-enable") {
            return;
        }
        let done = match features & PACKED {
            0 => self.pass(memory, features, index, device),
            _ if fault("protocol/packed") => Ok(()),
            _ => self.pass_packed(memory, index, device),
        };
        if done.is_err() {
            if fault("protocol/malformed-ring") {
                std::process::abort();
            }
            self.broken = true;
        }
    }

    fn pass(
        &mut self,
        memory: &Memory,
        features: u64,
        index: usize,
        device: &mut dyn Device,
    ) -> Result<(), Broken> {
        let [_, available, used] = self.places.ok_or(Broken)?;
        if self.size == 0 {
            return Err(Broken);
        }
        let mut any = false;
        loop {
            let end = memory.u16(available + 2)?;
            fence(Ordering::Acquire);
            let waiting = end.wrapping_sub(self.next);
            if waiting == 0 {
                break;
            }
            if waiting > self.size {
                return Err(Broken);
            }
            let slot = u64::from(self.next % self.size);
            let head = memory.u16(available + 4 + 2 * slot)?;
            let chain = self.chain(memory, head)?;
            let Some(written) = device.handle(index, &chain, memory)? else {
                break;
            };
            self.next = self.next.wrapping_add(1);
            let at = memory.u16(used + 2)?;
            let place = used + 4 + 8 * u64::from(at % self.size);
            let element = [u32::from(head).to_le_bytes(), written.to_le_bytes()].concat();
            memory.write(place, &element)?;
            fence(Ordering::Release);
            memory.write(used + 2, &at.wrapping_add(1).to_le_bytes())?;
            any = true;
        }
        let event_idx = features & 1 << 29 != 0;
        if event_idx {
            // The driver is to kick for the next one.
            let place = used + 4 + 8 * u64::from(self.size);
            memory.write(place, &self.next.to_le_bytes())?;
        }
        if any && !(event_idx && fault("protocol/event-idx")) {
            if let Some(call) = &mut self.call {
                let _ = call.write(&1_u64.to_ne_bytes());
            }
        }
        Ok(())
    }

    /// The place after `count` more descriptors.
    fn after(&self, place: u16, count: u16) -> u16 {
        let index = (place & !WRAP) + count;
        match index >= self.size {
            true => (place & WRAP ^ WRAP) | (index - self.size),
            false => place & WRAP | index,
        }
    }

    fn pass_packed(
        &mut self,
        memory: &Memory,
        index: usize,
        device: &mut dyn Device,
    ) -> Result<(), Broken> {
        let [ring, ..] = self.places.ok_or(Broken)?;
        if self.size == 0 {
            return Err(Broken);
        }
        loop {
            let mut chain = Chain::default();
            let mut count = 0;
            let id = loop {
                let place = self.after(self.next, count);
                let bytes = memory.read(ring + 16 * u64::from(place & !WRAP), 16)?;
                fence(Ordering::Acquire);
                let half = |n: usize| u16::from_le_bytes([bytes[n], bytes[n + 1]]);
                let flags = half(14);
                let (available, used) = (flags & AVAILABLE != 0, flags & USED != 0);
                let wrap = place & WRAP != 0;
                if count == 0 && (available != wrap || used == wrap) {
                    return Ok(());
                }
                let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
                if !memory.contains(address, len.into()) || count >= self.size {
                    return Err(Broken);
                }
                match flags & WRITE {
                    0 => chain.readable.push((address, len)),
                    _ => chain.writable.push((address, len)),
                }
                count += 1;
                if flags & NEXT == 0 {
                    break half(12);
                }
            };
            let Some(written) = device.handle(index, &chain, memory)? else {
                return Ok(());
            };
            self.next = self.after(self.next, count);
            let at = ring + 16 * u64::from(self.used & !WRAP);
            memory.write(
                at + 8,
                &[&written.to_le_bytes()[..], &id.to_le_bytes()].concat(),
            )?;
            fence(Ordering::Release);
            let flags = if self.used & WRAP == 0 {
                0
            } else {
                AVAILABLE | USED
            };
            memory.write(at + 14, &flags.to_le_bytes())?;
            self.used = self.after(self.used, count);
            if let Some(call) = &mut self.call {
                let _ = call.write(&1_u64.to_ne_bytes());
            }
        }
    }

    fn chain(&self, memory: &Memory, head: u16) -> Result<Chain, Broken> {
        let [table, ..] = self.places.ok_or(Broken)?;
        let (mut table, mut size, mut index) = (table, self.size, head);
        let mut chain = Chain::default();
        let mut indirect = false;
        for _ in 0..=self.size {
            if index >= size {
                return Err(Broken);
            }
            let bytes = memory.read(table + 16 * u64::from(index), 16)?;
            let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
            if flags & INDIRECT != 0 && !fault("protocol/indirect") {
                if indirect || len % 16 != 0 || len == 0 {
                    return Err(Broken);
                }
                indirect = true;
                (table, size, index) = (address, (len / 16).min(1024) as u16, 0);
                continue;
            }
            if !memory.contains(address, len.into()) {
                return Err(Broken);
            }
            match flags & WRITE {
                0 => chain.readable.push((address, len)),
                _ => chain.writable.push((address, len)),
            }
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = u16::from_le_bytes([bytes[14], bytes[15]]);
        }
        Err(Broken)
    }
}
