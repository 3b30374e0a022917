// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blob resources (virtio 1.2, 5.7.6.8) of the guest's memory (`VIRTIO_GPU_BLOB_MEM_GUEST`) and of the host's
//! (`VIRTIO_GPU_BLOB_MEM_HOST3D`): this process has no copy of their pixels.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vm_memory::GuestAddressSpace as _;

use super::image::{MAX_SIDE, PIXEL_LEN};
use super::pixel_order::to_display_order;
use super::{Backing, BackingError, HostMapping};
use crate::backend::GuestMemory;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::FramebufferLayout;

/// Why a blob cannot be created or shown.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(feature = "virgl"),
    expect(dead_code, reason = "3D alone uses some")
)]
pub(crate) enum BlobError {
    #[error("it has 0 bytes")]
    Empty,
    #[error("its memory is to be the host's, which only 3D has")]
    HostMemory,
    #[error(
        "its memory is to be the host's with a copy in the guest's, which the renderer does not have"
    )]
    GuestCopy,
    #[error("a blob of the host's memory has no entries of the guest's")]
    Entries,
    #[error("its framebuffer of {0} pixels is out of bounds: each side must be 1 to {MAX_SIDE}")]
    Size(Size),
    #[error("its rows overlap: {stride} bytes from one of {width} pixels to the next")]
    Stride { stride: u32, width: u32 },
    #[error("{rect:?} is not within its framebuffer of {size} pixels")]
    Outside { rect: Rect, size: Size },
    #[error("its framebuffer ends at byte {end}, of {len}")]
    TooShort { end: u64, len: u64 },
    #[error("the host's Vulkan driver gives it in a form of its own")]
    Opaque,
    #[error("its file has {size} bytes, it would be the {len} from {offset} on")]
    ShortFile { size: u64, offset: u64, len: u64 },
    #[error("its file cannot be kept from shrinking: {0}")]
    File(#[source] io::Error),
    #[error("a display would need {0} bytes for it, more than the VM's host memory budget")]
    TooLarge(u64),
}

/// A blob resource. It is gone when this is dropped, whatever shows it.
#[derive(Debug)]
pub(crate) struct Blob(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    len: u64,
    storage: Storage,
}

/// Where its bytes are.
#[derive(Debug)]
enum Storage {
    Guest(GuestStorage),
    Host(HostMapping),
}

#[derive(Debug)]
struct GuestStorage {
    memory: GuestMemory,
    backing: Mutex<Option<Backing>>,
}

impl GuestStorage {
    fn backing(&self) -> MutexGuard<'_, Option<Backing>> {
        self.backing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BackingError> {
        let backing = self.backing();
        let Some(backing) = &*backing else {
            return Err(BackingError::Short {
                has: 0,
                needed: offset.saturating_add(into.len() as u64),
            });
        };
        // As the front-end shares it now.
        let memory = self.memory.memory();
        let mut reader = backing.reader(&memory);
        reader.seek(offset);
        reader.read(into)
    }
}

impl Shared {
    fn guest(&self) -> Option<&GuestStorage> {
        match &self.storage {
            Storage::Guest(guest) => Some(guest),
            Storage::Host(_) => None,
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BackingError> {
        match &self.storage {
            Storage::Guest(guest) => guest.read(offset, into),
            Storage::Host(mapping) => mapping.reader()?.read(offset, into),
        }
    }
}

impl Blob {
    /// A blob of `len` bytes in the guest's `memory`, without a backing.
    ///
    /// # Errors
    /// If `len` is 0.
    pub(crate) fn new(len: u64, memory: GuestMemory) -> Result<Self, BlobError> {
        if len == 0 {
            return Err(BlobError::Empty);
        }
        Ok(Self(Arc::new(Shared {
            len,
            storage: Storage::Guest(GuestStorage {
                memory,
                backing: Mutex::new(None),
            }),
        })))
    }

    /// A blob in the host's memory.
    #[cfg_attr(
        not(any(test, feature = "virgl")),
        expect(dead_code, reason = "3D alone has it")
    )]
    pub(crate) fn on_host(mapping: HostMapping) -> Self {
        Self(Arc::new(Shared {
            len: mapping.len(),
            storage: Storage::Host(mapping),
        }))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.0.len
    }

    pub(crate) fn has_backing(&self) -> bool {
        self.with_backing(|_| ()).is_some()
    }

    /// Replaces its backing in the guest's memory.
    pub(crate) fn set_backing(&mut self, backing: Option<Backing>) {
        if let Some(guest) = self.0.guest() {
            *guest.backing() = backing;
        }
    }

    /// Calls `look` with the backing, if it has one.
    pub(crate) fn with_backing<T>(&self, look: impl FnOnce(&Backing) -> T) -> Option<T> {
        self.0.guest()?.backing().as_ref().map(look)
    }

    /// How many of its bytes have a place; `None` before it has a backing.
    pub(crate) fn backed_len(&self) -> Option<u64> {
        match &self.0.storage {
            Storage::Guest(_) => self.with_backing(Backing::len),
            Storage::Host(_) => Some(self.len()),
        }
    }

    /// Copies its bytes from `offset` on.
    ///
    /// # Errors
    /// If it has no backing, that ends before, or is no longer in the guest's memory.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BackingError> {
        self.0.read(offset, into)
    }

    /// A handle by which scanouts know it.
    pub(crate) fn handle(&self) -> BlobHandle {
        BlobHandle(Arc::downgrade(&self.0))
    }

    /// The framebuffer that lies in it as `layout` says.
    ///
    /// # Errors
    /// If `rect`, a part of it, is not within the framebuffer, or that is not within the blob.
    pub(crate) fn framebuffer(
        &self,
        layout: FramebufferLayout,
        rect: &Rect,
    ) -> Result<BlobFramebuffer, BlobError> {
        let FramebufferLayout { size, stride, .. } = layout;
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&size.width) || !sides.contains(&size.height) {
            return Err(BlobError::Size(size));
        }
        let width = size.width;
        if u64::from(stride) < u64::from(width) * PIXEL_LEN as u64 {
            return Err(BlobError::Stride { stride, width });
        }
        if !rect.lies_within(size) {
            return Err(BlobError::Outside { rect: *rect, size });
        }
        let framebuffer = BlobFramebuffer {
            blob: self.handle(),
            layout,
        };
        let (end, len) = (framebuffer.end_of(rect), self.len());
        if end > len {
            return Err(BlobError::TooShort { end, len });
        }
        Ok(framebuffer)
    }
}

/// Names a blob, which may be gone.
#[derive(Clone, Debug)]
pub(crate) struct BlobHandle(Weak<Shared>);

impl BlobHandle {
    /// Whether both are the same blob.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// Whether the host's GPU does not draw in it now, so that it can be read at once.
    pub(crate) fn is_drawn(&self) -> bool {
        let blob = self.0.upgrade();
        match blob.as_ref().map(|shared| &shared.storage) {
            Some(Storage::Host(mapping)) => mapping.is_drawn(),
            Some(Storage::Guest(_)) | None => true,
        }
    }
}

/// Pixels in a blob, which may be gone.
#[derive(Clone, Debug)]
pub(crate) struct BlobFramebuffer {
    blob: BlobHandle,
    layout: FramebufferLayout,
}

impl BlobFramebuffer {
    /// The blob.
    pub(crate) fn blob(&self) -> &BlobHandle {
        &self.blob
    }

    /// How they lie in it.
    pub(crate) fn layout(&self) -> FramebufferLayout {
        self.layout
    }

    /// Where column `x` of row `y` begins, in bytes.
    fn offset_of(&self, x: u32, y: u32) -> u64 {
        // Cannot overflow: 32 bits by 32 bits, and the rest is as small.
        let rows = u64::from(self.layout.stride) * u64::from(y);
        let columns = u64::from(x) * PIXEL_LEN as u64;
        rows.saturating_add(columns)
            .saturating_add(self.layout.offset.into())
    }

    /// Where the last pixel of `rect` ends, in bytes.
    pub(crate) fn end_of(&self, rect: &Rect) -> u64 {
        match rect.is_empty() {
            true => 0,
            false => self.offset_of(rect.right(), rect.bottom().saturating_sub(1)),
        }
    }

    /// Fills `into` with the pixels of `rect`, row by row and in the display's order, but for those in the first `skip` bytes.
    /// Both are whole pixels. The guest may write to them meanwhile. What it took away is black. Returns the number of
    /// pieces of memory that were looked up.
    pub(crate) fn read(&self, rect: &Rect, skip: usize, into: &mut [u8]) -> u64 {
        let shared = self.blob.0.upgrade();
        match shared.as_ref().map(|shared| &shared.storage) {
            Some(Storage::Guest(guest)) => {
                let backing = guest.backing();
                let Some(backing) = &*backing else {
                    into.fill(0);
                    return 0;
                };
                let memory = guest.memory.memory();
                let mut reader = backing.reader(&memory);
                self.read_rows(rect, skip, into, |offset, part| {
                    reader.seek(offset);
                    reader.read(part)
                });
                reader.pieces()
            }
            Some(Storage::Host(mapping)) => {
                match mapping.reader() {
                    Ok(reader) => {
                        self.read_rows(rect, skip, into, |offset, part| reader.read(offset, part))
                    }
                    Err(_) => into.fill(0),
                }
                0
            }
            None => {
                into.fill(0);
                0
            }
        }
    }

    /// As [`BlobFramebuffer::read`], by `read`, which copies the blob's bytes from an offset on.
    fn read_rows(
        &self,
        rect: &Rect,
        skip: usize,
        into: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), BackingError>,
    ) {
        let row_len = rect.width as usize * PIXEL_LEN;
        let mut at = skip;
        let mut rest = into;
        while !rest.is_empty() {
            let (Some(row), Some(column)) = (at.checked_div(row_len), at.checked_rem(row_len))
            else {
                break;
            };
            let len = row_len.saturating_sub(column).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            let y = rect.y.saturating_add(row as u32);
            let from = self.offset_of(rect.x, y).saturating_add(column as u64);
            match read(from, part) {
                Ok(()) => to_display_order(self.layout.format, part),
                Err(_) => part.fill(0),
            }
            at = at.saturating_add(len);
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests;
