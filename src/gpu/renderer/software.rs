//! 2D in the host's memory: one copy out of the guest's pages, none after it.

use crate::backend::MemoryGuard;

use super::super::backing::{Backing, BackingError, MAX_PIECE};
use super::super::image::{Budget, Image, PIXEL_LEN, SharedImage};
use super::super::protocol::{Format, Transfer2d};
use super::super::region::{Rect, Region};
use super::rows::{Joined, copy_pixels};
use super::table::Table;
use super::{
    CURSOR_LEN, CURSOR_SIDE, Copied, CursorPixels, PIECE_WORK, Renderer, ResourceError, WORK,
};

/// Most resources a VM has at a time.
const MAX_RESOURCES: usize = 16384;
/// What a resource is charged besides its pixels: its entry in the table, rounded up.
const RESOURCE_COST: u64 = 512;

struct Resource {
    format: Format,
    width: u32,
    height: u32,
    image: SharedImage,
    backing: Option<Backing>,
}

/// The renderer without a GPU.
pub struct SoftwareRenderer {
    resources: Table<Resource>,
}

impl SoftwareRenderer {
    /// A renderer whose resources take their memory from `budget`.
    pub fn new(budget: Budget) -> Self {
        Self {
            resources: Table::new(MAX_RESOURCES, budget),
        }
    }
}

impl Renderer for SoftwareRenderer {
    fn create_2d(
        &mut self,
        id: u32,
        format: Format,
        width: u32,
        height: u32,
    ) -> Result<(), ResourceError> {
        self.resources.wants(id)?;
        let charge = self.resources.charge(id, RESOURCE_COST)?;
        let image = Image::new(width, height, &self.resources.budget)
            .map_err(|error| ResourceError::Image { id, error })?;
        let resource = Resource {
            format,
            width,
            height,
            image: SharedImage::new(image),
            backing: None,
        };
        self.resources.insert(id, charge, resource);
        Ok(())
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.remove(id)
    }

    fn size(&self, id: u32) -> Result<(u32, u32), ResourceError> {
        let resource = self.resources.get(id)?;
        Ok((resource.width, resource.height))
    }

    fn new_backing(&self, id: u32) -> Result<Backing, ResourceError> {
        match self.resources.get(id)?.backing {
            Some(_) => Err(ResourceError::HasBacking(id)),
            None => Backing::new(&self.resources.budget)
                .map_err(|error| ResourceError::Backing { id, error }),
        }
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        _memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        let place = &mut self.resources.get_mut(id)?.backing;
        if place.is_some() {
            return Err(ResourceError::HasBacking(id));
        }
        *place = Some(backing);
        Ok(())
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        match self.resources.get_mut(id)?.backing.take() {
            Some(_) => Ok(()),
            None => Err(ResourceError::NoBacking(id)),
        }
    }

    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<Copied, ResourceError> {
        let Transfer2d { id, rect, offset } = *transfer;
        let (width, _) = self.check_within(id, rect)?;
        let resource = self.resources.get(id)?;
        let backing = resource
            .backing
            .as_ref()
            .ok_or(ResourceError::NoBacking(id))?;
        let mut copied = Copied { rows: 0, work: 0 };
        if rect.is_empty() {
            return Ok(Copied {
                rows: rect.height,
                ..copied
            });
        }
        let stride = u64::from(width) * PIXEL_LEN as u64;
        let row_len = rect.width as usize * PIXEL_LEN;
        check_rows(id, rect, width, offset, backing.len())?;
        let failed = |error| ResourceError::Backing { id, error };
        let mut image = resource.image.lock();
        let mut joined = Joined::new(changed);
        let mut backing = backing.reader(memory);
        let mut block = [0; MAX_PIECE];
        for line in first..rect.height {
            if copied.work >= WORK {
                break;
            }
            let y = rect.y.saturating_add(line);
            backing.seek(offset.saturating_add(u64::from(line) * stride));
            let mut old = image.bytes_mut(rect.x, y, row_len);
            let mut x = rect.x;
            while !old.is_empty() {
                let (len, changed) =
                    copy_pixels(&mut backing, resource.format, old, &mut block).map_err(failed)?;
                let column = |byte: usize| x.saturating_add((byte / PIXEL_LEN) as u32);
                if let Some(bytes) = changed {
                    joined.row(y, column(bytes.start)..column(bytes.end));
                }
                x = column(len);
                old = old.get_mut(len..).unwrap_or_default();
            }
            copied.rows = copied.rows.saturating_add(1);
            let bytes = u64::from(copied.rows).saturating_mul(row_len as u64);
            copied.work = bytes.saturating_add(backing.pieces().saturating_mul(PIECE_WORK));
        }
        Ok(copied)
    }

    fn image(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        Ok(self.resources.get(id)?.image.clone())
    }

    fn scanout_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(Some(self.resources.get(id)?.image.clone()))
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        let resource = self.resources.get(id)?;
        let (width, height) = (resource.width, resource.height);
        let mut pixels = Box::new([0; CURSOR_LEN]);
        let image = resource.image.lock();
        let bytes = image.bytes(0, 0, CURSOR_LEN);
        if (width, height) != (CURSOR_SIDE, CURSOR_SIDE) || bytes.len() != CURSOR_LEN {
            return Err(ResourceError::NoCursor { id, width, height });
        }
        pixels.copy_from_slice(bytes);
        Ok(pixels)
    }

    fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError> {
        self.resources.uuid(id)
    }

    fn reset(&mut self) {
        self.resources.clear();
    }
}

/// Whether a backing of `has` bytes has the rows of `rect`, which is not empty, of resource `id`, which
/// is `width` wide. The first pixel lies at `offset`. Asked before a row is copied: the work
/// of a refused command is not counted.
fn check_rows(id: u32, rect: Rect, width: u32, offset: u64, has: u64) -> Result<(), ResourceError> {
    let pixel = PIXEL_LEN as u64;
    let needed = u64::from(rect.height.saturating_sub(1))
        .saturating_mul(u64::from(width) * pixel)
        .saturating_add(u64::from(rect.width) * pixel)
        .saturating_add(offset);
    if needed > has {
        let error = BackingError::Short { has, needed };
        return Err(ResourceError::Backing { id, error });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
