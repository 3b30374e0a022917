//! A request's fields, read one by one.

use std::io::{self, Read};

use super::super::region::Rect;
use super::Header;

/// Reads little-endian fields in their order on the wire.
pub struct Fields<R>(R);

impl<R: Read> Fields<R> {
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

    /// The next `count` entries of a backing (`struct virtio_gpu_mem_entry`): address and length.
    ///
    /// # Errors
    /// Where the source ends first, or the host has no memory for them (`OutOfMemory`).
    pub fn entries(&mut self, count: usize) -> io::Result<Vec<(u64, u32)>> {
        /// Entries read at a time: what is allocated follows what the request really carries.
        const BATCH: usize = 256;
        const ENTRY_LEN: usize = 16;
        let mut entries = Vec::new();
        let mut buffer = [0; BATCH * ENTRY_LEN];
        while entries.len() < count {
            let batch = (count - entries.len()).min(BATCH);
            let (wanted, _) = buffer.split_at_mut(batch * ENTRY_LEN);
            self.0.read_exact(wanted)?;
            reserve(&mut entries, batch)?;
            let (chunks, _) = wanted.as_chunks::<ENTRY_LEN>();
            entries.extend(chunks.iter().map(|entry| {
                let [low, high, length, _padding] = words(*entry);
                (u64::from(low) | u64::from(high) << 32, length)
            }));
        }
        Ok(entries)
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
        let entries = Fields::new(&bytes[..]).entries(300).unwrap();
        assert_eq!(entries.len(), 300);
        assert_eq!(entries[299], (299 << 33, 4096));
        assert!(Fields::new(&bytes[..]).entries(301).is_err());
        assert!(Fields::new(&bytes[..]).entries(usize::MAX).is_err());
    }
}
