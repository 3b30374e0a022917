// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A resource's pixels in the host's memory.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard};

use memmap2::{Advice, MmapMut};

use crate::backend::continuity::{Arena, Extent};
use crate::geometry::{Rect, Size};

use super::{Budget, Charge};

/// Bytes of a pixel, in every format of a 2D resource.
pub(crate) const PIXEL_LEN: usize = 4;
/// Most rows and most columns of an image.
pub(crate) const MAX_SIDE: u32 = 16384;
/// Images of at least this many bytes use huge pages where the kernel has them.
const HUGE_PAGE: usize = 2 << 20;

/// Why an image cannot be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{0} pixels: each side must be 1 to {MAX_SIDE}")]
    Size(Size),
    #[error("{0} bytes exceed what is left of the VM's host memory budget")]
    Budget(u64),
    #[error("the host has no memory for {bytes} bytes: {source}")]
    HostMemory { bytes: u64, source: io::Error },
    /// Only of an image that a predecessor left.
    #[error("there is no place for {bytes} bytes at {offset:#x}")]
    Place { offset: u64, bytes: usize },
}

/// An image that a scanout shows while commands write to it.
#[derive(Clone, Debug)]
pub(crate) struct SharedImage(Arc<Mutex<Image>>);

impl SharedImage {
    pub(crate) fn new(image: Image) -> Self {
        Self(Arc::new(Mutex::new(image)))
    }

    /// Locks the image. Keep the guard for one copy only: the display waits for it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether both are the same image.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Pixels in the display's order (blue, green, red, alpha or unused), rows without gaps.
#[derive(Debug)]
pub(crate) struct Image {
    width: u32,
    pixels: Pixels,
    /// Bytes that commands write before kept pixels are put into huge pages. Those of this process alone are from the first
    /// write on.
    left_to_collapse: u64,
    _charge: Charge,
}

/// The memory of an image.
#[derive(Debug)]
enum Pixels {
    /// It ends with the process.
    Private(MmapMut),
    /// It outlives the process.
    Kept(Extent),
}

impl Deref for Pixels {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Private(pixels) => pixels,
            Self::Kept(pixels) => pixels,
        }
    }
}

impl DerefMut for Pixels {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Private(pixels) => pixels,
            Self::Kept(pixels) => pixels,
        }
    }
}

impl Image {
    /// A black image.
    ///
    /// # Errors
    /// If `size` is out of bounds, or the budget or the host has too little memory.
    pub(crate) fn new(size: Size, budget: &Budget) -> Result<Self, ImageError> {
        Self::with_pixels(size, budget, |len| {
            // The kernel allocates a page when a command first writes to it.
            let pixels = MmapMut::map_anon(len).map_err(|source| ImageError::HostMemory {
                bytes: len as u64,
                source,
            })?;
            if len >= HUGE_PAGE {
                // Copies then miss the TLB less often; without huge pages they are only slower.
                let _ = pixels.advise(Advice::HugePage);
            }
            Ok(Pixels::Private(pixels))
        })
    }

    /// A black image in `arena`, which outlives the process. Its memory is freed with the commit after it is dropped.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub(crate) fn new_kept(size: Size, budget: &Budget, arena: &Arena) -> Result<Self, ImageError> {
        Self::with_pixels(size, budget, |len| {
            let pixels = arena.allocate(len).ok_or(ImageError::HostMemory {
                bytes: len as u64,
                source: io::ErrorKind::OutOfMemory.into(),
            })?;
            Ok(Pixels::Kept(pixels))
        })
    }

    /// The image that a predecessor left at `offset` of `arena`, with its pixels.
    ///
    /// # Errors
    /// As [`Image::new`], or if there is none.
    pub(crate) fn adopt(
        size: Size,
        budget: &Budget,
        arena: &Arena,
        offset: u64,
    ) -> Result<Self, ImageError> {
        Self::with_pixels(size, budget, |bytes| {
            let pixels = arena.adopt(offset, bytes);
            let pixels = pixels.ok_or(ImageError::Place { offset, bytes })?;
            Ok(Pixels::Kept(pixels))
        })
    }

    fn with_pixels(
        size: Size,
        budget: &Budget,
        pixels: impl FnOnce(usize) -> Result<Pixels, ImageError>,
    ) -> Result<Self, ImageError> {
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&size.width) || !sides.contains(&size.height) {
            return Err(ImageError::Size(size));
        }
        let bytes = Rect::from(size).area() * PIXEL_LEN as u64;
        // A mapping takes whole pages.
        let taken = bytes.next_multiple_of(rustix::param::page_size() as u64);
        let charge = budget.charge(taken).ok_or(ImageError::Budget(taken))?;
        let len = usize::try_from(bytes).map_err(|_| ImageError::Budget(bytes))?;
        Ok(Self {
            width: size.width,
            pixels: pixels(len)?,
            left_to_collapse: bytes,
            _charge: charge,
        })
    }

    /// Where its pixels lie in the arena, if they outlive the process.
    pub(crate) fn kept_at(&self) -> Option<u64> {
        match &self.pixels {
            Pixels::Private(_) => None,
            Pixels::Kept(pixels) => Some(pixels.offset()),
        }
    }

    /// A command has written `bytes` bytes. Kept pixels get huge pages once as much was written as there is, which is worth
    /// the copy.
    pub(crate) fn written(&mut self, bytes: u64) {
        let Pixels::Kept(pixels) = &self.pixels else {
            return;
        };
        if self.left_to_collapse > 0 {
            self.left_to_collapse = self.left_to_collapse.saturating_sub(bytes);
            if self.left_to_collapse == 0 && pixels.len() >= HUGE_PAGE {
                pixels.collapse();
            }
        }
    }

    /// Bytes from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.width as usize * PIXEL_LEN
    }

    fn span(&self, x: u32, y: u32, bytes: usize) -> Range<usize> {
        let start = (y as usize)
            .saturating_mul(self.stride())
            .saturating_add((x as usize).saturating_mul(PIXEL_LEN));
        start..start.saturating_add(bytes)
    }

    /// `bytes` bytes from column `x` of row `y` on; empty if the image ends before.
    pub(crate) fn bytes(&self, x: u32, y: u32, bytes: usize) -> &[u8] {
        self.pixels.get(self.span(x, y, bytes)).unwrap_or_default()
    }

    /// As [`Image::bytes`], mutable.
    pub(crate) fn bytes_mut(&mut self, x: u32, y: u32, bytes: usize) -> &mut [u8] {
        let span = self.span(x, y, bytes);
        self.pixels.get_mut(span).unwrap_or_default()
    }

    /// Writes `row` from column `x` of row `y` on, and returns the columns that changed.
    #[cfg(any(test, feature = "virgl"))]
    pub(crate) fn merge_row(&mut self, x: u32, y: u32, row: &[u8]) -> Option<Range<u32>> {
        let changed = merge(self.bytes_mut(x, y, row.len()), row)?;
        let column = |byte: usize| x.saturating_add((byte / PIXEL_LEN) as u32);
        Some(column(changed.start)..column(changed.end))
    }
}

/// Writes the pixels `new` over `old`, which has the same length, and returns the range of bytes from
/// the first to the last pixel that changed.
pub(crate) fn merge(old: &mut [u8], new: &[u8]) -> Option<Range<usize>> {
    if old.len() != new.len() {
        return None;
    }
    let changed = difference(old, new)?;
    let into = old.get_mut(changed.clone())?;
    into.copy_from_slice(new.get(changed.clone())?);
    Some(changed)
}

/// The range of bytes from the first to the last pixel in which two rows of one length differ.
fn difference(old: &[u8], new: &[u8]) -> Option<Range<usize>> {
    /// Bytes compared at once before single pixels are compared.
    const BLOCK: usize = 64;
    if old == new {
        return None;
    }
    let same = |len: usize| {
        old.chunks(len)
            .zip(new.chunks(len))
            .take_while(|(a, b)| a == b)
            .count()
            * len
    };
    let near = same(BLOCK);
    let start = near
        + old
            .get(near..)?
            .chunks(PIXEL_LEN)
            .zip(new.get(near..)?.chunks(PIXEL_LEN))
            .take_while(|(a, b)| a == b)
            .count()
            * PIXEL_LEN;
    let blocks_behind = old
        .rchunks(BLOCK)
        .zip(new.rchunks(BLOCK))
        .take_while(|(a, b)| a == b)
        .count()
        * BLOCK;
    let far = old.len().checked_sub(blocks_behind)?;
    let pixels_behind = old
        .get(..far)?
        .rchunks(PIXEL_LEN)
        .zip(new.get(..far)?.rchunks(PIXEL_LEN))
        .take_while(|(a, b)| a == b)
        .count()
        * PIXEL_LEN;
    Some(start..far.checked_sub(pixels_behind)?)
}

#[cfg(test)]
mod tests;
