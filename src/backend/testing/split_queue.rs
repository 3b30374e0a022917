// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), as bytes in the guest's memory. It keeps to
//! nothing by itself: which chains are valid, and what their answers must be, is up to the test.

use virtio_bindings::virtio_ring;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// The chain continues at [`Descriptor::next`].
pub const NEXT: u16 = virtio_ring::VRING_DESC_F_NEXT as u16;
/// The device writes to the buffer.
pub const WRITE: u16 = virtio_ring::VRING_DESC_F_WRITE as u16;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = virtio_ring::VRING_DESC_F_INDIRECT as u16;

/// `virtq_desc`: a part of a chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub at: u64,
    /// Size of the buffer in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`] and [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// As it lies in the guest's memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let Self {
            at,
            len,
            flags,
            next,
        } = self;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }

    /// From the guest's memory.
    #[cfg(feature = "fuzzing")]
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [at @ .., l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Self {
            at: u64::from_le_bytes(at),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Writes it at `index` of the descriptors at `table`.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn write(
        self,
        memory: &GuestMemoryMmap,
        table: u64,
        index: u16,
    ) -> Result<(), GuestMemoryError> {
        let at = GuestAddress(table + u64::from(index) * 16);
        memory.write_slice(&self.to_bytes(), at)
    }
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// First descriptor of the chain, if the device is right.
    pub head: u32,
    /// Bytes written, as the device says.
    pub len: u32,
}

/// Where a queue lies, and how far its driver is.
#[derive(Clone, Copy, Debug)]
pub struct SplitQueue {
    /// Guest physical address of the descriptors.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub available: u64,
    /// Guest physical address of the used ring.
    pub used: u64,
    /// Number of entries.
    pub size: u16,
    /// Index of the next request.
    pub next_available: u16,
    /// Index of the next answer.
    pub next_used: u16,
}

impl SplitQueue {
    /// An unused queue.
    #[must_use]
    pub fn new([descriptors, available, used]: [u64; 3], size: u16) -> Self {
        Self {
            descriptors,
            available,
            used,
            size,
            next_available: 0,
            next_used: 0,
        }
    }

    /// Begins at `index`, with both rings empty.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn begin(&mut self, memory: &GuestMemoryMmap, index: u16) -> Result<(), GuestMemoryError> {
        (self.next_available, self.next_used) = (index, index);
        for ring in [self.available, self.used] {
            memory.write_slice(&index.to_le_bytes(), GuestAddress(ring + 2))?;
        }
        Ok(())
    }

    /// Makes the chain at `head` available.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn make_available(
        &mut self,
        memory: &GuestMemoryMmap,
        head: u16,
    ) -> Result<(), GuestMemoryError> {
        let slot = u64::from(self.next_available % self.size);
        let at = GuestAddress(self.available + 4 + slot * 2);
        memory.write_slice(&head.to_le_bytes(), at)?;
        self.set_available(memory, self.next_available.wrapping_add(1))
    }

    /// Says that the available ring ends at `index`.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn set_available(
        &mut self,
        memory: &GuestMemoryMmap,
        index: u16,
    ) -> Result<(), GuestMemoryError> {
        self.next_available = index;
        memory.write_slice(&index.to_le_bytes(), GuestAddress(self.available + 2))
    }

    /// The next answer, if there is one.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn take_used(
        &mut self,
        memory: &GuestMemoryMmap,
    ) -> Result<Option<Used>, GuestMemoryError> {
        let mut index = [0; 2];
        memory.read_slice(&mut index, GuestAddress(self.used + 2))?;
        if self.next_used == u16::from_le_bytes(index) {
            return Ok(None);
        }
        let slot = u64::from(self.next_used % self.size);
        let mut element = [0; 8];
        memory.read_slice(&mut element, GuestAddress(self.used + 4 + slot * 8))?;
        self.next_used = self.next_used.wrapping_add(1);
        let [h0, h1, h2, h3, len @ ..] = element;
        Ok(Some(Used {
            head: u32::from_le_bytes([h0, h1, h2, h3]),
            len: u32::from_le_bytes(len),
        }))
    }
}
