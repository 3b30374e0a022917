// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderer without a GPU: one copy from the guest's memory to an image, and none after it.

use std::ops::RangeInclusive;

use crate::backend::continuity::Arena;
use crate::backend::{GuestMemory, MemoryGuard};
use crate::geometry::{Rect, Size};
use crate::gpu::kept_state::{
    BackingRecord, BlobRecord, KeptState, KeptStateError, ResourceRecord,
};
use crate::gpu::protocol::{Format, FramebufferLayout, ResourceCreateBlob, Transfer2d};
use crate::gpu::region::Region;
use crate::gpu::resource::{
    Backing, BackingError, Blob, BlobFramebuffer, Budget, CURSOR_LEN, CURSOR_SIDE, CursorPixels,
    Image, MAX_PIECE, PIXEL_LEN, ResourceError, ResourceTable, SharedImage,
};

use super::damage_collector::DamageCollector;
use super::row_copy::copy_pixels;
use super::{Copied, MAX_STEP_WORK, PIECE_COST, Renderer};
use resource::{Resource, ResourceKind, TwoD};

pub(super) mod blobs;
mod resource;

/// Most resources of a VM.
const MAX_RESOURCES: usize = 16384;
/// Bytes charged for a resource besides its pixels: its entry in the table, rounded up.
const RESOURCE_COST: u64 = 512;

/// Smallest page of a guest.
const PAGE: u64 = 4096;
/// Runs of all backings together that are kept for a successor, at least and at most. They take 8 and 64 MiB, and are
/// single pages of 2 and 16 GiB.
const KEPT_RUNS: RangeInclusive<usize> = 512 << 10..=4 << 20;

/// Most runs that are kept: as many as a driver can need that has the pixels of each resource once, in single pages. A
/// guest with more than that is refused, rather than lose its GPU by a restart.
fn most_kept_runs(budget: &Budget) -> usize {
    let pages = usize::try_from(budget.limit() / PAGE).unwrap_or(usize::MAX);
    let runs = pages.saturating_add(MAX_RESOURCES);
    runs.clamp(*KEPT_RUNS.start(), *KEPT_RUNS.end())
}

/// Renders in 2D by the CPU.
pub(crate) struct SoftwareRenderer {
    resources: ResourceTable<Resource>,
    /// The guest's memory, of which blobs are.
    memory: GuestMemory,
    /// Where its resources are kept for a successor, if they are.
    kept: Option<(KeptState, Arena)>,
    /// Runs of all backings that are kept.
    kept_runs: usize,
}

impl SoftwareRenderer {
    /// A renderer whose resources are charged to `budget`, for a guest with `memory`.
    pub(crate) fn new(budget: Budget, memory: GuestMemory) -> Self {
        Self {
            resources: ResourceTable::new(MAX_RESOURCES, budget),
            memory,
            kept: None,
            kept_runs: 0,
        }
    }

    /// A renderer for a guest without memory.
    #[cfg(test)]
    pub(crate) fn without_memory(budget: Budget) -> Self {
        Self::new(budget, GuestMemory::new(Default::default()))
    }

    /// A renderer whose resources are kept in `state` for a successor, with their pixels in `arena`. It has those that a
    /// predecessor left there.
    ///
    /// # Errors
    /// If these cannot be used.
    pub(crate) fn resume(
        budget: Budget,
        memory: GuestMemory,
        state: KeptState,
        arena: Arena,
    ) -> Result<Self, KeptStateError> {
        let left = state.all::<ResourceRecord>()?;
        let mut renderer = Self {
            kept: Some((state.clone(), arena.clone())),
            ..Self::new(budget, memory)
        };
        for (id, record) in left {
            renderer
                .adopt(id, &record, &arena)
                .map_err(|source| KeptStateError::Refused {
                    name: "resource",
                    id: id.into(),
                    source: source.into(),
                })?;
        }
        for (id, record) in state.all::<BlobRecord>()? {
            renderer
                .adopt_blob(id, &record)
                .map_err(|source| KeptStateError::Refused {
                    name: "blob",
                    id: id.into(),
                    source: source.into(),
                })?;
        }
        for (id, record) in state.all::<BackingRecord>()? {
            renderer.adopt_backing(id, &record, &arena)?;
        }
        Ok(renderer)
    }

    /// Whether there is a resource `id`.
    #[cfg(feature = "virgl")]
    pub(super) fn contains(&self, id: u32) -> bool {
        self.resources.get(id).is_ok()
    }

    fn adopt(
        &mut self,
        id: u32,
        record: &ResourceRecord,
        arena: &Arena,
    ) -> Result<(), ResourceError> {
        let ResourceRecord {
            format,
            size,
            offset,
            uuid,
        } = *record;
        self.resources.check_new(id)?;
        let charge = self.resources.charge(id, RESOURCE_COST)?;
        let image = Image::adopt(size, self.resources.budget(), arena, offset)
            .map_err(|source| ResourceError::Image { id, source })?;
        let resource = Resource::two_d(format, size, image);
        self.resources.insert(id, charge, resource);
        self.resources.set_uuid(id, uuid)
    }

    fn adopt_blob(&mut self, id: u32, record: &BlobRecord) -> Result<(), ResourceError> {
        self.resources.check_new(id)?;
        self.insert_blob(id, record.len, None)?;
        self.resources.set_uuid(id, record.uuid)
    }

    fn insert_blob(
        &mut self,
        id: u32,
        len: u64,
        backing: Option<Backing>,
    ) -> Result<(), ResourceError> {
        let charge = self.resources.charge(id, RESOURCE_COST)?;
        let blob = Blob::new(len, self.memory.clone());
        let mut blob = blob.map_err(|source| ResourceError::Blob { id, source })?;
        blob.set_backing(backing);
        self.resources.insert(id, charge, Resource::blob(blob));
        Ok(())
    }

    fn adopt_backing(
        &mut self,
        id: u32,
        record: &BackingRecord,
        arena: &Arena,
    ) -> Result<(), KeptStateError> {
        let refused = |source: ResourceError| KeptStateError::Refused {
            name: "backing of resource",
            id: id.into(),
            source: source.into(),
        };
        let backing = Backing::resume(record, arena, self.resources.budget())
            .map_err(|source| refused(ResourceError::Backing { id, source }))?;
        let runs = backing.count();
        let resource = self.resources.get_mut(id).map_err(refused)?;
        resource.set_backing(Some(backing));
        resource.kept_runs = runs;
        self.kept_runs = self.kept_runs.saturating_add(runs);
        Ok(())
    }

    /// Keeps what the resource `id` is now, which is new or has another UUID.
    fn keep(&self, id: u32) -> Result<(), ResourceError> {
        let Some((state, _)) = &self.kept else {
            return Ok(());
        };
        let uuid = self.resources.uuid(id)?;
        match &self.resources.get(id)?.kind {
            ResourceKind::TwoD(TwoD {
                format,
                size,
                image,
                ..
            }) => {
                if let Some(offset) = image.lock().kept_at() {
                    let record = ResourceRecord {
                        format: *format,
                        size: *size,
                        offset,
                        uuid,
                    };
                    state.put(id, &record);
                }
            }
            ResourceKind::Blob(blob) => state.put(id, &blobs::record(blob, uuid)),
        }
        Ok(())
    }

    /// How many more runs can be kept.
    fn kept_runs_left(&self) -> usize {
        match &self.kept {
            Some(_) => most_kept_runs(self.resources.budget()).saturating_sub(self.kept_runs),
            None => usize::MAX,
        }
    }

    /// An empty backing for the resource `id`, of up to `entries` pieces.
    fn backing_for(&self, id: u32, entries: u32) -> Result<Backing, ResourceError> {
        let budget = self.resources.budget();
        let backing = match &self.kept {
            // No more than can be kept is read.
            Some((_, arena)) => {
                let entries = usize::try_from(entries).unwrap_or(usize::MAX);
                Backing::new_kept(budget, arena, entries.min(self.kept_runs_left()))
            }
            None => Backing::new(budget),
        };
        backing.map_err(|source| ResourceError::Backing { id, source })
    }

    /// Checks that a backing of the resource `id` can be kept.
    fn check_runs(&self, id: u32, backing: &Backing) -> Result<(), ResourceError> {
        let left = self.kept_runs_left();
        if backing.count() > left {
            let source = BackingError::Scattered { left };
            return Err(ResourceError::Backing { id, source });
        }
        Ok(())
    }

    /// A resource that is no blob.
    fn two_d(&self, id: u32) -> Result<&TwoD, ResourceError> {
        match &self.resources.get(id)?.kind {
            ResourceKind::TwoD(resource) => Ok(resource),
            ResourceKind::Blob(_) => Err(ResourceError::IsBlob(id)),
        }
    }

    /// Keeps the backing of the resource `id`, which has just been attached.
    fn keep_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        let Some((state, _)) = &self.kept else {
            return Ok(());
        };
        let resource = self.resources.get_mut(id)?;
        let kept = resource.with_backing(|backing| (backing.count(), backing.record()));
        if let Some((runs, record)) = kept {
            resource.kept_runs = runs;
            self.kept_runs = self.kept_runs.saturating_add(runs);
            if let Some(record) = record {
                state.put(id, &record);
            }
        }
        Ok(())
    }

    /// The resource `id` has no backing any more.
    fn forget_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        if let Some((state, _)) = &self.kept {
            let runs = std::mem::take(&mut self.resources.get_mut(id)?.kept_runs);
            self.kept_runs = self.kept_runs.saturating_sub(runs);
            state.remove::<BackingRecord>(id);
        }
        Ok(())
    }
}

impl Renderer for SoftwareRenderer {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.resources.check_new(id)?;
        let charge = self.resources.charge(id, RESOURCE_COST)?;
        let budget = self.resources.budget();
        let image = match &self.kept {
            Some((_, arena)) => Image::new_kept(size, budget, arena),
            None => Image::new(size, budget),
        };
        let image = image.map_err(|source| ResourceError::Image { id, source })?;
        let resource = Resource::two_d(format, size, image);
        self.resources.insert(id, charge, resource);
        self.keep(id)
    }

    fn has_blobs(&self) -> bool {
        true
    }

    fn new_blob_backing(&self, new: &ResourceCreateBlob) -> Result<Backing, ResourceError> {
        self.resources.check_new(new.id)?;
        blobs::check(new)?;
        self.backing_for(new.id, new.count)
    }

    fn create_blob(
        &mut self,
        new: &ResourceCreateBlob,
        backing: Option<Backing>,
    ) -> Result<(), ResourceError> {
        let id = new.id;
        self.resources.check_new(id)?;
        blobs::check(new)?;
        if let Some(backing) = &backing {
            self.check_runs(id, backing)?;
        }
        self.insert_blob(id, new.len, backing)?;
        self.keep(id)?;
        self.keep_backing(id)
    }

    fn blob(&self, id: u32) -> Option<&Blob> {
        match &self.resources.get(id).ok()?.kind {
            ResourceKind::TwoD(_) => None,
            ResourceKind::Blob(blob) => Some(blob),
        }
    }

    fn framebuffer(
        &self,
        id: u32,
        layout: FramebufferLayout,
        rect: &Rect,
    ) -> Result<BlobFramebuffer, ResourceError> {
        let limit = self.resources.budget().limit();
        match &self.resources.get(id)?.kind {
            ResourceKind::TwoD(_) => Err(ResourceError::IsNoBlob(id)),
            ResourceKind::Blob(blob) => blobs::framebuffer(id, blob, layout, rect, limit),
        }
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.forget_backing(id)?;
        self.resources.remove(id)?;
        if let Some((state, _)) = &self.kept {
            state.remove::<ResourceRecord>(id);
            state.remove::<BlobRecord>(id);
        }
        Ok(())
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        Ok(self.two_d(id)?.size)
    }

    fn new_backing(&self, id: u32, entries: u32) -> Result<Backing, ResourceError> {
        if self.resources.get(id)?.has_backing() {
            return Err(ResourceError::HasBacking(id));
        }
        self.backing_for(id, entries)
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        _memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        if self.resources.get(id)?.has_backing() {
            return Err(ResourceError::HasBacking(id));
        }
        self.check_runs(id, &backing)?;
        self.resources.get_mut(id)?.set_backing(Some(backing));
        self.keep_backing(id)
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        let resource = self.resources.get_mut(id)?;
        if !resource.has_backing() {
            return Err(ResourceError::NoBacking(id));
        }
        resource.set_backing(None);
        self.forget_backing(id)
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
        let resource = self.two_d(id)?;
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
        image.written(u64::from(copied.rows).saturating_mul(row_len as u64));
        Ok(copied)
    }

    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        Ok(self.two_d(id)?.image.clone())
    }

    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(match &self.resources.get(id)?.kind {
            ResourceKind::TwoD(resource) => Some(resource.image.clone()),
            ResourceKind::Blob(_) => None,
        })
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        if let Some(blob) = self.blob(id) {
            return blobs::cursor(id, blob);
        }
        let resource = self.two_d(id)?;
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
        let uuid = self.resources.assign_uuid(id)?;
        self.keep(id)?;
        Ok(uuid)
    }

    fn reset(&mut self) {
        self.resources.clear();
        self.kept_runs = 0;
        if let Some((state, _)) = &self.kept {
            state.clear::<ResourceRecord>();
            state.clear::<BlobRecord>();
            state.clear::<BackingRecord>();
        }
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
