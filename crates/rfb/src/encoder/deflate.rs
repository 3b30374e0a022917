// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Zlib streams that stay open from rectangle to rectangle.

use flate2::{Compress, Compression, FlushCompress, Status};

/// A stream, which begins when it is first used.
///
/// It takes some 300 KiB: a window of 32 KiB twice, chains and hash table of it, and a buffer of symbols.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    stream: Option<(Compress, u32)>,
}

/// Least room for output, more than the end of a flush takes: only so can it be told from a lack of room.
const ROOM: usize = 4096;

impl Deflater {
    /// Compresses `input` behind what `out` has, at a level of 0 to 9. What is not flushed may stay in the stream.
    pub(super) fn append(&mut self, mut input: &[u8], level: u32, flush: bool, out: &mut Vec<u8>) {
        let new = || (Compress::new(Compression::new(level), true), level);
        let (stream, has_level) = self.stream.get_or_insert_with(new);
        // Only between flushes, when the stream holds nothing back. It stays at its level otherwise.
        if *has_level != level && stream.set_level(Compression::new(level)).is_ok() {
            *has_level = level;
        }
        let flush = if flush {
            FlushCompress::Sync
        } else {
            FlushCompress::None
        };
        loop {
            out.reserve(ROOM.max(input.len() / 4));
            let before = stream.total_in();
            let status = stream.compress_vec(input, out, flush);
            // It fails only after an end of the stream, which nobody asks for.
            let status = status.unwrap_or(Status::StreamEnd);
            let taken = usize::try_from(stream.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            let has_room = out.len() < out.capacity();
            if status != Status::Ok || (input.is_empty() && has_room) {
                return;
            }
        }
    }
}
