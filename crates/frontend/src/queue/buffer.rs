// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Buffers and descriptors: the parts of a chain.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

/// The flags of a [`Descriptor`].
pub mod descriptor_flags {
    /// Another descriptor follows, `next`.
    pub const NEXT: u16 = super::VRING_DESC_F_NEXT as u16;
    /// The device writes, it does not read.
    pub const WRITE: u16 = super::VRING_DESC_F_WRITE as u16;
    /// It points to a table of descriptors.
    pub const INDIRECT: u16 = super::VRING_DESC_F_INDIRECT as u16;
}
use descriptor_flags::{NEXT, WRITE};

/// Size of a descriptor in bytes.
pub(super) const DESCRIPTOR_SIZE: u64 = 16;

/// A piece of guest memory that is part of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes there.
    pub writable: bool,
}

impl Buffer {
    /// A piece the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: false,
        }
    }

    /// A piece the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: true,
        }
    }

    /// The same memory in pieces of at most `size` bytes.
    pub fn pieces(self, size: u32) -> impl Iterator<Item = Self> {
        let size = size.max(1);
        (0..self.len.div_ceil(size)).map(move |n| Self {
            address: self.address + u64::from(n * size),
            len: size.min(self.len - n * size),
            ..self
        })
    }
}

/// A descriptor as it lies in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// See [`descriptor_flags`].
    pub flags: u16,
    /// The descriptor that follows, if the flags say so.
    pub next: u16,
}

impl Descriptor {
    pub(super) fn bytes(self) -> [u8; DESCRIPTOR_SIZE as usize] {
        let mut bytes = [0; DESCRIPTOR_SIZE as usize];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

pub(super) fn descriptor(buffer: &Buffer, next: Option<u16>) -> Descriptor {
    let mut flags = if buffer.writable { WRITE } else { 0 };
    if next.is_some() {
        flags |= NEXT;
    }
    Descriptor {
        address: buffer.address,
        len: buffer.len,
        flags,
        next: next.unwrap_or(0),
    }
}
