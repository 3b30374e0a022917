//! The renderer without a GPU: one copy from the guest's memory to an image, and none after it.

use crate::backend::MemoryGuard;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{Format, Transfer2d};
use crate::gpu::region::Region;
use crate::gpu::resource::{
    Backing, BackingError, Budget, CURSOR_LEN, CURSOR_SIDE, CursorPixels, Image, MAX_PIECE,
    PIXEL_LEN, ResourceError, ResourceTable, SharedImage,
};

use super::damage_collector::DamageCollector;
use super::row_copy::copy_pixels;
use super::{Copied, MAX_STEP_WORK, PIECE_COST, Renderer};

/// Most resources of a VM.
const MAX_RESOURCES: usize = 16384;
/// Bytes charged for a resource besides its pixels: its entry in the table, rounded up.
const RESOURCE_COST: u64 = 512;

struct Resource {
    format: Format,
    size: Size,
    image: SharedImage,
    backing: Option<Backing>,
}

/// Renders in 2D by the CPU.
pub(crate) struct SoftwareRenderer {
    resources: ResourceTable<Resource>,
}

impl SoftwareRenderer {
    /// A renderer whose resources are charged to `budget`.
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            resources: ResourceTable::new(MAX_RESOURCES, budget),
        }
    }
}

impl Renderer for SoftwareRenderer {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.resources.check_new(id)?;
        let charge = self.resources.charge(id, RESOURCE_COST)?;
        let image = Image::new(size, self.resources.budget())
            .map_err(|source| ResourceError::Image { id, source })?;
        let resource = Resource {
            format,
            size,
            image: SharedImage::new(image),
            backing: None,
        };
        self.resources.insert(id, charge, resource);
        Ok(())
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.remove(id)
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        Ok(self.resources.get(id)?.size)
    }

    fn new_backing(&self, id: u32) -> Result<Backing, ResourceError> {
        match self.resources.get(id)?.backing {
            Some(_) => Err(ResourceError::HasBacking(id)),
            None => Backing::new(self.resources.budget())
                .map_err(|source| ResourceError::Backing { id, source }),
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
        let width = self.check_within(id, rect)?.width;
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
        let failed = |source| ResourceError::Backing { id, source };
        let mut image = resource.image.lock();
        let mut damage = DamageCollector::new(changed);
        let mut backing = backing.reader(memory);
        let mut block = [0; MAX_PIECE];
        for line in first..rect.height {
            if copied.work >= MAX_STEP_WORK {
                break;
            }
            let y = rect.y.saturating_add(line);
            backing.seek(offset.saturating_add(u64::from(line) * stride));
            let mut old = image.bytes_mut(rect.x, y, row_len);
            let mut x = rect.x;
            while !old.is_empty() {
                let copy =
                    copy_pixels(&mut backing, resource.format, old, &mut block).map_err(failed)?;
                let column = |byte: usize| x.saturating_add((byte / PIXEL_LEN) as u32);
                if let Some(bytes) = copy.changed {
                    damage.add_row(y, column(bytes.start)..column(bytes.end));
                }
                x = column(copy.len);
                old = old.get_mut(copy.len..).unwrap_or_default();
            }
            copied.rows = copied.rows.saturating_add(1);
            let bytes = u64::from(copied.rows).saturating_mul(row_len as u64);
            copied.work = bytes.saturating_add(backing.pieces().saturating_mul(PIECE_COST));
        }
        Ok(copied)
    }

    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        Ok(self.resources.get(id)?.image.clone())
    }

    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(Some(self.resources.get(id)?.image.clone()))
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        let resource = self.resources.get(id)?;
        let size = resource.size;
        let mut pixels = Box::new([0; CURSOR_LEN]);
        let image = resource.image.lock();
        let bytes = image.bytes(0, 0, CURSOR_LEN);
        if size != Size::new(CURSOR_SIDE, CURSOR_SIDE) || bytes.len() != CURSOR_LEN {
            return Err(ResourceError::NoCursor { id, size });
        }
        pixels.copy_from_slice(bytes);
        Ok(pixels)
    }

    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        self.resources.assign_uuid(id)
    }

    fn reset(&mut self) {
        self.resources.clear();
    }
}

/// Checks that a backing of `has` bytes contains the rows of `rect`, which is not empty, of resource
/// `id` with `width` columns. The first pixel is at `offset`. This comes before the first row is
/// copied, since the work of a failed command is not counted.
fn check_rows(id: u32, rect: Rect, width: u32, offset: u64, has: u64) -> Result<(), ResourceError> {
    let pixel = PIXEL_LEN as u64;
    let needed = u64::from(rect.height.saturating_sub(1))
        .saturating_mul(u64::from(width) * pixel)
        .saturating_add(u64::from(rect.width) * pixel)
        .saturating_add(offset);
    if needed > has {
        let source = BackingError::Short { has, needed };
        return Err(ResourceError::Backing { id, source });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
