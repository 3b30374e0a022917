// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blob resources of the renderer without a GPU, which are the guest's memory, and the pixels of any blob.

use crate::geometry::Rect;
use crate::gpu::kept_state::BlobRecord;
use crate::gpu::protocol::{BlobMemory, FramebufferLayout, ResourceCreateBlob};
use crate::gpu::resource::{
    Blob, BlobError, BlobFramebuffer, CURSOR_LEN, CursorPixels, PIXEL_LEN, ResourceError,
};

/// Checks that there can be such a blob.
pub(super) fn check(new: &ResourceCreateBlob) -> Result<(), ResourceError> {
    let source = match new.memory {
        BlobMemory::Guest if new.len != 0 => return Ok(()),
        BlobMemory::Guest => BlobError::Empty,
        BlobMemory::Host3d | BlobMemory::Host3dGuest => BlobError::HostMemory,
    };
    Err(ResourceError::Blob { id: new.id, source })
}

/// What is kept of a blob.
pub(super) fn record(blob: &Blob, uuid: Option<[u8; 16]>) -> BlobRecord {
    BlobRecord {
        len: blob.len(),
        uuid,
    }
}

/// The framebuffer that lies in the blob `id` as `layout` says, of which displays have a copy of at most `most` bytes.
pub(in crate::gpu::renderer) fn framebuffer(
    id: u32,
    blob: &Blob,
    layout: FramebufferLayout,
    rect: &Rect,
    most: u64,
) -> Result<BlobFramebuffer, ResourceError> {
    let failed = |source| ResourceError::Blob { id, source };
    let framebuffer = blob.framebuffer(layout, rect).map_err(failed)?;
    let bytes = rect.area().saturating_mul(PIXEL_LEN as u64);
    if bytes > most {
        return Err(failed(BlobError::TooLarge(bytes)));
    }
    Ok(framebuffer)
}

/// The pixels of the blob `id` as a cursor.
pub(in crate::gpu::renderer) fn cursor(
    id: u32,
    blob: &Blob,
) -> Result<CursorPixels, ResourceError> {
    let mut pixels = Box::new([0; CURSOR_LEN]);
    let read = blob.read(0, &mut pixels[..]);
    read.map_err(|source| ResourceError::Backing { id, source })?;
    Ok(pixels)
}
