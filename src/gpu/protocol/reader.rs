// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the fields of requests in their order.

use std::io::{self, Read};

use super::{Header, ReadError};
use crate::geometry::Rect;

/// Bytes read at once when a request begins: the header and the fields of every command, without
/// lists and command streams. (`virtio-queue` allocates for each read.)
const HEAD_LEN: usize = 96;
/// Bytes of an entry of a backing.
const MEM_ENTRY_LEN: usize = 16;
/// Entries read at a time.
const ENTRY_BATCH: usize = 256;
/// Words of a command stream read at a time.
const WORD_BATCH: usize = 4096;

/// The bytes of a request.
pub(crate) trait RequestBytes: Read {
    /// Skips `len` bytes without reading them.
    ///
    /// # Errors
    /// If there are fewer.
    fn skip(&mut self, len: usize) -> io::Result<()>;
}

impl RequestBytes for &[u8] {
    fn skip(&mut self, len: usize) -> io::Result<()> {
        *self = self.get(len..).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

impl RequestBytes for virtio_queue::Reader<'_> {
    fn skip(&mut self, len: usize) -> io::Result<()> {
        let rest = self.split_at(len);
        *self = rest.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

/// A piece of guest memory (`struct virtio_gpu_mem_entry`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemEntry {
    /// Guest physical address.
    pub(crate) addr: u64,
    /// Bytes.
    pub(crate) length: u32,
}

impl MemEntry {
    fn decode(bytes: &[u8; MEM_ENTRY_LEN]) -> Self {
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
            _padding @ ..,
        ] = *bytes;
        Self {
            addr: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        }
    }
}

#[cfg(test)]
impl From<(u64, u32)> for MemEntry {
    fn from((addr, length): (u64, u32)) -> Self {
        Self { addr, length }
    }
}

/// Room for entries that are read together.
pub(crate) struct MemEntryBuffer([[u8; MEM_ENTRY_LEN]; ENTRY_BATCH]);

impl MemEntryBuffer {
    pub(crate) fn new() -> Self {
        Self([[0; MEM_ENTRY_LEN]; ENTRY_BATCH])
    }
}

/// Reads a request from its header on. Backing entries and command streams, which follow a command's
/// fields, stay unread until the command is checked.
///
/// Each read fails if the request ends before its last byte.
pub(crate) struct RequestReader<S> {
    head: [u8; HEAD_LEN],
    /// Bytes of the head that were consumed.
    consumed: usize,
    /// Bytes that the head holds.
    filled: usize,
    rest: S,
}

impl<S: RequestBytes> RequestReader<S> {
    /// Begins a request.
    pub(crate) fn new(mut source: S) -> Self {
        let mut head = [0; HEAD_LEN];
        let filled = source.read(&mut head).unwrap_or(0);
        Self {
            head,
            consumed: 0,
            filled,
            rest: source,
        }
    }

    /// The next `struct virtio_gpu_ctrl_hdr`.
    pub(super) fn header(&mut self) -> Result<Header, ReadError> {
        let kind = self.u32()?;
        let flags = self.u32()?;
        let fence_id = self.u64()?;
        let ctx_id = self.u32()?;
        let [ring_idx, ..] = self.bytes::<4>()?;
        Ok(Header {
            kind,
            flags,
            fence_id,
            ctx_id,
            ring_idx,
        })
    }

    /// The next `N` bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `le32`.
    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// The next `le64`.
    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The next `N` times `le32`.
    pub(super) fn words<const N: usize>(&mut self) -> Result<[u32; N], ReadError> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(words)
    }

    /// The next `struct virtio_gpu_rect`.
    pub(super) fn rect(&mut self) -> Result<Rect, ReadError> {
        let [x, y, width, height] = self.words()?;
        Ok(Rect {
            x,
            y,
            width,
            height,
        })
    }

    /// The next entries of a backing: as many as `buffer` has room for, and at most `count`.
    pub(crate) fn mem_entries<'a>(
        &mut self,
        count: u32,
        buffer: &'a mut MemEntryBuffer,
    ) -> Result<impl ExactSizeIterator<Item = MemEntry> + use<'a, S>, ReadError> {
        let room = buffer.0.len().min(count as usize);
        let wanted = buffer.0.get_mut(..room).unwrap_or_default();
        self.fill(wanted.as_flattened_mut())?;
        Ok(wanted.iter().map(MemEntry::decode))
    }

    /// Skips the next `count` entries of a backing.
    pub(crate) fn skip_mem_entries(&mut self, count: u32) -> Result<(), ReadError> {
        if count == 0 {
            return Ok(());
        }
        let len = (count as usize).saturating_mul(MEM_ENTRY_LEN);
        let of_head = len.min(self.filled.saturating_sub(self.consumed));
        self.consumed = self.consumed.saturating_add(of_head);
        let skipped = self.rest.skip(len.saturating_sub(of_head));
        skipped.map_err(|_| ReadError::TooShort)
    }

    /// The next `count` words of a command stream. Memory is allocated as words are found.
    ///
    /// # Errors
    /// Also if the host has no memory for them.
    pub(crate) fn command_stream(&mut self, count: usize) -> Result<Vec<u32>, ReadError> {
        let mut words = Vec::new();
        let mut buffer = [0; WORD_BATCH * 4];
        while words.len() < count {
            let batch = (count - words.len()).min(WORD_BATCH);
            let (wanted, _) = buffer.split_at_mut(batch * 4);
            self.fill(wanted)?;
            let reserved = words.try_reserve(batch);
            reserved.map_err(|_| ReadError::OutOfMemory)?;
            let chunks = wanted.chunks_exact(4).filter_map(<[u8]>::first_chunk);
            words.extend(chunks.map(|word| u32::from_le_bytes(*word)));
        }
        Ok(words)
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), ReadError> {
        let mut head = self
            .head
            .get(self.consumed..self.filled)
            .unwrap_or_default();
        let of_head = head.read(into).unwrap_or(0);
        self.consumed = self.consumed.saturating_add(of_head);
        let rest = into.get_mut(of_head..).unwrap_or_default();
        self.rest.read_exact(rest).map_err(|_| ReadError::TooShort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_where_the_request_does() {
        let mut bytes = Vec::new();
        for i in 0..300_u64 {
            bytes.extend((i << 33).to_le_bytes());
            bytes.extend(4096_u32.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
        }
        let mut buffer = MemEntryBuffer::new();
        let mut reader = RequestReader::new(&bytes[..]);
        let entry = |i: u64| MemEntry {
            addr: i << 33,
            length: 4096,
        };
        let first: Vec<_> = reader.mem_entries(300, &mut buffer).unwrap().collect();
        assert_eq!(first.len(), 256);
        assert_eq!(first[255], entry(255));
        let rest: Vec<_> = reader.mem_entries(44, &mut buffer).unwrap().collect();
        assert_eq!((rest.len(), rest[43]), (44, entry(299)));
        assert!(reader.mem_entries(1, &mut buffer).is_err());
        assert!(reader.mem_entries(0, &mut buffer).is_ok());
    }

    #[test]
    fn entries_are_skipped_beyond_the_head() {
        let bytes: Vec<u8> = (0..160).collect();
        for (before, skipped) in [(0, 0), (0, 5), (0, 6), (0, 9), (8, 5), (8, 6), (16, 8)] {
            let mut reader = RequestReader::new(&bytes[..]);
            reader.fill(&mut vec![0; before]).unwrap();
            reader.skip_mem_entries(skipped).unwrap();
            let next = before as u8 + skipped as u8 * 16;
            assert_eq!(reader.bytes::<1>().unwrap(), [next]);
            assert_eq!(
                reader.skip_mem_entries(10 - skipped),
                Err(ReadError::TooShort)
            );
        }
    }

    #[test]
    fn fields_continue_beyond_the_head() {
        let bytes: Vec<u8> = (0..104).collect();
        let mut reader = RequestReader::new(&bytes[..]);
        reader.bytes::<94>().unwrap();
        assert_eq!(reader.u32(), Ok(u32::from_le_bytes([94, 95, 96, 97])));
        assert_eq!(reader.bytes::<6>().unwrap(), [98, 99, 100, 101, 102, 103]);
        assert_eq!(reader.u32(), Err(ReadError::TooShort));
    }

    #[test]
    fn command_streams_end_where_the_request_does() {
        let words: Vec<u32> = (0..10_000).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut reader = RequestReader::new(&bytes[..]);
        assert_eq!(reader.command_stream(10_000).unwrap(), words);
        let mut reader = RequestReader::new(&bytes[..]);
        assert_eq!(reader.command_stream(10_001), Err(ReadError::TooShort));
    }
}
