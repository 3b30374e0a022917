// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies rows of pixels from a backing, in the display's order of bytes.

use std::ops::Range;

use crate::gpu::protocol::Format;
use crate::gpu::resource::{
    BackingError, BackingReader, MAX_PIECE, PIXEL_LEN, is_display_order, merge, to_display_order,
};

/// The result of [`copy_pixels`].
#[derive(Debug)]
pub(super) struct PixelCopy {
    /// Bytes copied.
    pub(super) len: usize,
    /// The range of these bytes from the first to the last pixel that changed.
    pub(super) changed: Option<Range<usize>>,
}

/// Copies the next pixels of `backing` over the first of `old`, which has at least one. `block` is
/// scratch space.
pub(super) fn copy_pixels(
    backing: &mut BackingReader<'_>,
    format: Format,
    old: &mut [u8],
    block: &mut [u8; MAX_PIECE],
) -> Result<PixelCopy, BackingError> {
    let piece = backing.piece(old.len())?;
    let len = piece.len();
    if is_display_order(format) && len % PIXEL_LEN == 0 {
        let old = old.get_mut(..len).unwrap_or_default();
        // If both ends changed, all pixels count as changed, and one copy is enough.
        let [mut first, mut last] = [[0; PIXEL_LEN]; 2];
        piece.copy_to(&mut first);
        let before_last = len.saturating_sub(PIXEL_LEN);
        if let Ok(pixel) = piece.offset(before_last) {
            pixel.copy_to(&mut last);
        }
        if !old.starts_with(&first) && !old.ends_with(&last) {
            piece.copy_to(old);
            let changed = Some(0..len);
            return Ok(PixelCopy { len, changed });
        }
        // Compare a copy, which fits the L1 cache: the guest may write to its memory meanwhile, and
        // memcmp(3) on changing memory is undefined.
        let new = block.get_mut(..len).unwrap_or_default();
        piece.copy_to(new);
        let changed = merge(old, new);
        return Ok(PixelCopy { len, changed });
    }
    let len = old.len().min(MAX_PIECE);
    let new = block.get_mut(..len).unwrap_or_default();
    piece.copy_to(new);
    backing.read(new.get_mut(piece.len()..).unwrap_or_default())?;
    to_display_order(format, new);
    let changed = merge(old.get_mut(..len).unwrap_or_default(), new);
    Ok(PixelCopy { len, changed })
}
