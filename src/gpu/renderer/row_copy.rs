//! Copies rows of pixels from a backing, and puts them into the display's order of bytes.

use std::ops::Range;

use crate::gpu::protocol::Format;
use crate::gpu::resource::{BackingError, BackingReader, MAX_PIECE, PIXEL_LEN, merge};

fn is_display_order(format: Format) -> bool {
    matches!(format, Format::B8G8R8A8 | Format::B8G8R8X8)
}

/// Converts a row to the display's order of bytes (blue, green, red, alpha or unused), in place.
pub(super) fn to_display_order(format: Format, row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<PIXEL_LEN>();
    match format {
        Format::B8G8R8A8 | Format::B8G8R8X8 => {}
        Format::A8R8G8B8 | Format::X8R8G8B8 => pixels.iter_mut().for_each(|p| p.reverse()),
        Format::R8G8B8A8 | Format::R8G8B8X8 => pixels.iter_mut().for_each(|p| p.swap(0, 2)),
        Format::A8B8G8R8 | Format::X8B8G8R8 => pixels.iter_mut().for_each(|p| p.rotate_left(1)),
    }
}

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
    if is_display_order(format) && len.is_multiple_of(PIXEL_LEN) {
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
