//! A resource's pixels in the host's memory, and the budget they come from.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use memmap2::{Advice, MmapMut};

use super::region::Rect;

/// Bytes of a pixel, in every format of a 2D resource.
pub const PIXEL_LEN: usize = 4;
/// Most rows and most columns of an image, in pixels.
pub const MAX_SIDE: u32 = 16384;
/// From how many bytes on an image can have a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// How much host memory one VM's resources may take. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Arc::default(),
        }
    }

    /// Takes `bytes` out of it until the charge is dropped; `None` where they are not left.
    pub fn charge(&self, bytes: u64) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        Some(Charge {
            used: self.used.clone(),
            bytes,
        })
    }

    /// Most bytes that can be taken of it.
    #[cfg(feature = "virgl")]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// How much of the budget it is.
    #[cfg(feature = "fuzzing")]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the charge one of `bytes`; `false`, and no change, where what that is more is not left
    /// of `budget`, from which it was taken.
    pub fn resize(&mut self, budget: &Budget, bytes: u64) -> bool {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let Some(mut more) = budget.charge(more) else {
                return false;
            };
            more.bytes = 0;
        } else {
            let less = self.bytes.saturating_sub(bytes);
            self.used.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

/// A part of a [`Budget`] in use.
#[derive(Debug)]
pub struct Charge {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A side is 0 or beyond [`MAX_SIDE`].
    #[error("{0}x{1} pixels: each side must be 1 to {MAX_SIDE}")]
    Size(u32, u32),
    /// The VM's budget does not have it.
    #[error("{0} bytes are more than what is left of the VM's host memory budget")]
    Budget(u64),
    /// The host does not have it.
    #[error("the host has no memory for {0} bytes: {1}")]
    DeviceContext(u64, io::Error),
}

/// An image that a scanout may show while commands write into it.
#[derive(Clone, Debug)]
pub struct SharedImage(Arc<Mutex<Image>>);

impl SharedImage {
    /// Shares `image`.
    pub fn new(image: Image) -> Self {
        Self(Arc::new(Mutex::new(image)))
    }

    /// The image, for a short while.
    pub fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether both are the same image.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Pixels, four bytes each (blue, green, red, alpha or unused), rows without gaps.
#[derive(Debug)]
pub struct Image {
    width: u32,
    pixels: MmapMut,
    _charge: Charge,
}

impl Image {
    /// A black image.
    ///
    /// # Errors
    /// For a size out of bounds and for memory that is not there.
    pub fn new(width: u32, height: u32, budget: &Budget) -> Result<Self, ImageError> {
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(ImageError::Size(width, height));
        }
        let bytes = Rect::sized(width, height).area() * PIXEL_LEN as u64;
        // It takes whole pages.
        let taken = bytes.next_multiple_of(rustix::param::page_size() as u64);
        let charge = budget.charge(taken).ok_or(ImageError::Budget(taken))?;
        let len = usize::try_from(bytes).map_err(|_| ImageError::Budget(bytes))?;
        // Pages that no command has written to take no memory.
        let pixels = MmapMut::map_anon(len).map_err(|e| ImageError::DeviceContext(bytes, e))?;
        if len >= HUGE_PAGE {
            // Fewer pages to look up while pixels are copied; without them it only takes longer.
            let _ = pixels.advise(Advice::HugePage);
        }
        Ok(Self {
            width,
            pixels,
            _charge: charge,
        })
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.width as usize * PIXEL_LEN
    }

    fn span(&self, x: u32, y: u32, bytes: usize) -> Range<usize> {
        let start = (y as usize)
            .saturating_mul(self.stride())
            .saturating_add((x as usize).saturating_mul(PIXEL_LEN));
        start..start.saturating_add(bytes)
    }

    /// `bytes` bytes as they lie from column `x` of row `y` on; nothing where they are not all
    /// there.
    pub fn bytes(&self, x: u32, y: u32, bytes: usize) -> &[u8] {
        self.pixels.get(self.span(x, y, bytes)).unwrap_or_default()
    }

    /// As [`Image::bytes`], to be written.
    pub fn bytes_mut(&mut self, x: u32, y: u32, bytes: usize) -> &mut [u8] {
        let span = self.span(x, y, bytes);
        self.pixels.get_mut(span).unwrap_or_default()
    }

    /// Writes `row` from column `x` of row `y` on, and tells which columns it changed.
    pub fn merge_row(&mut self, x: u32, y: u32, row: &[u8]) -> Option<Range<u32>> {
        let changed = merge(self.bytes_mut(x, y, row.len()), row)?;
        let column = |byte: usize| x.saturating_add((byte / PIXEL_LEN) as u32);
        Some(column(changed.start)..column(changed.end))
    }
}

/// Writes the pixels `new` over `old`, and tells which bytes that changed, from the first pixel to
/// the last.
pub fn merge(old: &mut [u8], new: &[u8]) -> Option<Range<usize>> {
    if old.len() != new.len() {
        return None;
    }
    let changed = difference(old, new)?;
    let into = old.get_mut(changed.clone())?;
    into.copy_from_slice(new.get(changed.clone())?);
    Some(changed)
}

/// The bytes from the first to the last pixel in which two rows of the same length differ.
fn difference(old: &[u8], new: &[u8]) -> Option<Range<usize>> {
    /// Bytes compared at once before single pixels are looked at.
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
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_back_what_was_taken() {
        let budget = Budget::new(100);
        let first = budget.charge(60).unwrap();
        assert!(budget.charge(41).is_none());
        assert!(budget.charge(u64::MAX).is_none());
        let second = budget.charge(40).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_charge_grows_and_shrinks() {
        let budget = Budget::new(100);
        let mut charge = budget.charge(10).unwrap();
        assert!(charge.resize(&budget, 90));
        assert!(!charge.resize(&budget, 101));
        assert!(!charge.resize(&budget, u64::MAX));
        assert_eq!(budget.used(), 90);
        assert!(charge.resize(&budget, 30));
        assert_eq!(budget.used(), 30);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn sizes_are_bounded() {
        let budget = Budget::new(1 << 30);
        for (width, height) in [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (1, u32::MAX)] {
            assert!(matches!(
                Image::new(width, height, &budget),
                Err(ImageError::Size(..))
            ));
        }
        assert!(matches!(
            Image::new(MAX_SIDE, MAX_SIDE, &Budget::new(1 << 20)),
            Err(ImageError::Budget(_))
        ));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_row_tells_what_it_changed() {
        let mut image = Image::new(100, 2, &Budget::new(1 << 20)).unwrap();
        let mut row = vec![0_u8; 100 * PIXEL_LEN];
        assert_eq!(image.merge_row(0, 1, &row), None);
        row[40 * PIXEL_LEN + 3] = 1;
        assert_eq!(image.merge_row(0, 1, &row), Some(40..41));
        row[3] = 1;
        row[99 * PIXEL_LEN] = 1;
        assert_eq!(image.merge_row(0, 1, &row), Some(0..100));
        assert_eq!(image.merge_row(0, 1, &row), None);
        assert_eq!(image.bytes(0, 1, row.len()), row);
        assert!(image.bytes(0, 0, row.len()).iter().all(|b| *b == 0));
        assert_eq!(image.merge_row(10, 0, &[9; 8]), Some(10..12));
    }

    #[test]
    fn every_single_difference_is_found() {
        let old = vec![0_u8; 39 * PIXEL_LEN];
        for a in 0..39 {
            for b in a..39 {
                let mut new = old.clone();
                new[a * PIXEL_LEN] = 1;
                new[b * PIXEL_LEN + 3] = 1;
                let found = difference(&old, &new);
                assert_eq!(found, Some(a * PIXEL_LEN..(b + 1) * PIXEL_LEN));
            }
        }
    }

    #[test]
    fn nothing_lies_outside() {
        let mut image = Image::new(4, 4, &Budget::new(1 << 20)).unwrap();
        assert!(image.bytes(0, 4, 4).is_empty());
        assert!(image.bytes(u32::MAX, u32::MAX, usize::MAX).is_empty());
        assert_eq!(image.merge_row(0, u32::MAX, &[1; 16]), None);
    }
}
