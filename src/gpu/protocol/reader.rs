//! A request's fields, read one by one.

use std::io::{self, Read};

use super::super::region::Rect;
use super::Header;

/// Bytes of an entry of a backing.
pub const ENTRY_LEN: usize = 16;

/// Reads little-endian fields in their order on the wire.
pub struct RequestReader<R>(R);

impl<R: Read> RequestReader<R> {
    /// Fields from here on in `source`.
    pub fn new(source: R) -> Self {
        Self(source)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// Where the source ends first, as everything in here.
    pub fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `N` times `le32`.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn words<const N: usize>(&mut self) -> io::Result<[u32; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(words)
    }

    /// The next `count` times `le32`. What is allocated follows what the source really holds.
    ///
    /// # Errors
    /// Where the source ends first, or the host has no memory for them (`OutOfMemory`).
    pub fn stream(&mut self, count: usize) -> io::Result<Vec<u32>> {
        /// Words read at a time.
        const BATCH: usize = 4096;
        let mut words = Vec::new();
        let mut buffer = [0; BATCH * 4];
        while words.len() < count {
            let batch = (count - words.len()).min(BATCH);
            let (wanted, _) = buffer.split_at_mut(batch * 4);
            self.0.read_exact(wanted)?;
            reserve(&mut words, batch)?;
            let (chunks, _) = wanted.as_chunks::<4>();
            words.extend(chunks.iter().map(|word| u32::from_le_bytes(*word)));
        }
        Ok(words)
    }

    /// The next `le32`.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// The next `le64`.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The next `struct virtio_gpu_rect`.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn rect(&mut self) -> io::Result<Rect> {
        let [x, y, width, height] = words(self.bytes::<16>()?);
        Ok(Rect {
            x,
            y,
            width,
            height,
        })
    }

    /// The next `struct virtio_gpu_ctrl_hdr`.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn header(&mut self) -> io::Result<Header> {
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

    /// The next entries of a backing (`struct virtio_gpu_mem_entry`), address and length: as many as
    /// `buffer` has room for, and `count` at most.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn entries<'a>(
        &mut self,
        count: usize,
        buffer: &'a mut [[u8; ENTRY_LEN]],
    ) -> io::Result<impl ExactSizeIterator<Item = (u64, u32)> + use<'a, R>> {
        let room = buffer.len().min(count);
        let wanted = buffer.get_mut(..room).unwrap_or_default();
        self.0.read_exact(wanted.as_flattened_mut())?;
        Ok(wanted.iter().map(|entry| {
            let [low, high, length, _padding] = words(*entry);
            (u64::from(low) | u64::from(high) << 32, length)
        }))
    }
}

impl<S: Source> RequestReader<S> {
    /// Goes on `len` bytes further.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn skip(&mut self, len: usize) -> io::Result<()> {
        self.0.skip(len)
    }
}

/// What a request's bytes come from.
pub trait Source: Read {
    /// Goes on `len` bytes further without looking at them.
    ///
    /// # Errors
    /// Where the source ends first.
    fn skip(&mut self, len: usize) -> io::Result<()>;
}

impl Source for &[u8] {
    fn skip(&mut self, len: usize) -> io::Result<()> {
        *self = self.get(len..).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

impl Source for virtio_queue::Reader<'_> {
    fn skip(&mut self, len: usize) -> io::Result<()> {
        let rest = self.split_at(len);
        *self = rest.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

/// A request whose first bytes were read already.
pub struct Begun<'a, S> {
    head: &'a [u8],
    rest: S,
}

impl<'a, S: Source> Begun<'a, S> {
    /// `head`, and then what is left in `rest`.
    pub fn new(head: &'a [u8], rest: S) -> Self {
        Self { head, rest }
    }
}

impl<S: Source> Read for Begun<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            self.rest.read(into)
        } else {
            self.head.read(into)
        }
    }
}

impl<S: Source> Source for Begun<'_, S> {
    fn skip(&mut self, len: usize) -> io::Result<()> {
        let of_head = len.min(self.head.len());
        self.head.skip(of_head)?;
        self.rest.skip(len.saturating_sub(of_head))
    }
}

/// Makes room for `more` in a list that follows what a guest sends; an error where the host has none.
fn reserve<T>(list: &mut Vec<T>, more: usize) -> io::Result<()> {
    Ok(list
        .try_reserve(more)
        .map_err(|_| io::ErrorKind::OutOfMemory)?)
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(word)
    };
    [word(0), word(4), word(8), word(12)]
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
        let mut buffer = [[0; ENTRY_LEN]; 256];
        let mut source = &bytes[..];
        let mut fields = RequestReader::new(&mut source);
        let first: Vec<_> = fields.entries(300, &mut buffer).unwrap().collect();
        assert_eq!(first.len(), 256);
        assert_eq!(first[255], (255 << 33, 4096));
        let rest: Vec<_> = fields.entries(44, &mut buffer).unwrap().collect();
        assert_eq!((rest.len(), rest[43]), (44, (299 << 33, 4096)));
        assert!(fields.entries(1, &mut buffer).is_err());
        assert!(fields.entries(0, &mut buffer).is_ok());
    }

    #[test]
    fn a_request_is_skipped_over_its_head() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in [0, 1, 39, 40, 41, 99] {
            let begun = Begun::new(&bytes[..40], &bytes[40..]);
            let mut fields = RequestReader::new(begun);
            fields.skip(len).unwrap();
            assert_eq!(fields.bytes::<1>().unwrap(), [len as u8]);
            assert!(fields.skip(100 - len).is_err());
        }
    }
}
