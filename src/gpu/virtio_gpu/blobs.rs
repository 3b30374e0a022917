// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands on blob resources (virtio 1.2, 5.7.6.8): RESOURCE_CREATE_BLOB, SET_SCANOUT_BLOB, and the flushes of what they
//! show; RESOURCE_MAP_BLOB.

use std::time::Instant;

use super::CommandError;
use super::late_flushes::LateFlushes;
use super::mappings::{Mappings, WaitingCommand};
use super::transfers::{Entries, PartialCommand, Progress, read_entries};
use crate::backend::MemoryGuard;
use crate::geometry::Rect;
use crate::gpu::protocol::{
    RequestBytes, RequestReader, ResourceCreateBlob, ResourceMapBlob, Response, SetScanoutBlob,
};
use crate::gpu::renderer::Renderer;
use crate::gpu::resource::{BackingError, Blob, PixelSource, ResourceError};
use crate::gpu::scanout::{ScanoutSource, Scanouts};

/// RESOURCE_CREATE_BLOB. Entries are read only for a resource that can be created.
pub(super) fn create_blob(
    renderer: &mut dyn Renderer,
    new: &ResourceCreateBlob,
    partial: Option<PartialCommand>,
    data: &mut RequestReader<impl RequestBytes>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Progress, CommandError> {
    let (read, backing) = match partial {
        Some(PartialCommand::CreateBlob {
            new: same,
            read,
            backing,
        }) if same == *new => (read, backing),
        _ => (0, renderer.new_blob_backing(new)?),
    };
    let entries = Entries {
        resource: new.id,
        count: new.count,
        read,
        backing,
    };
    let entries = read_entries(entries, data, memory, work)?;
    if !entries.are_all_read() {
        return Ok(Progress::Partial(PartialCommand::CreateBlob {
            new: *new,
            read: entries.read,
            backing: entries.backing,
        }));
    }
    // Without entries the backing is attached later.
    let backing = (new.count != 0).then_some(entries.backing);
    renderer.create_blob(new, backing)?;
    Ok(Progress::Complete)
}

/// SET_SCANOUT_BLOB with a resource.
pub(super) fn set_scanout_blob(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    set: &SetScanoutBlob,
) -> Result<Response, CommandError> {
    let SetScanoutBlob {
        rect,
        scanout,
        resource,
        layout,
    } = *set;
    let framebuffer = renderer.framebuffer(resource, layout, &rect)?;
    if rect.is_empty() {
        return Err(CommandError::EmptyScanout(rect));
    }
    let blob = renderer.blob(resource);
    let blob = blob.ok_or(ResourceError::IsNoBlob(resource))?;
    check_backing(resource, blob, framebuffer.end_of(&rect))?;
    let pixels = PixelSource::Blob(framebuffer);
    if !scanouts.shows(scanout, &pixels, &rect) {
        let source = ScanoutSource {
            resource,
            pixels,
            rect,
            dmabuf: None,
        };
        scanouts.show(scanout, source);
    }
    Ok(Response::OkNoData)
}

/// RESOURCE_FLUSH of a blob. Its rectangle is in the coordinates of the framebuffers that scanouts show, which may have any
/// size.
pub(super) fn flush(
    scanouts: &mut Scanouts,
    late_flushes: &mut LateFlushes,
    resource: u32,
    blob: &Blob,
    rect: Rect,
) -> Result<Response, CommandError> {
    check_backing(resource, blob, 0)?;
    late_flushes.flush(scanouts, blob, rect, Instant::now());
    Ok(Response::OkNoData)
}

/// RESOURCE_MAP_BLOB. The command waits for the front-end.
pub(super) fn map_blob(
    renderer: &mut dyn Renderer,
    mappings: &mut Mappings,
    map: &ResourceMapBlob,
) -> Result<WaitingCommand, CommandError> {
    mappings.check_new(map.resource)?;
    let memory = renderer.host_memory(map.resource)?;
    Ok(mappings.map(map.resource, map.offset, memory)?)
}

/// Checks that a blob has a place, of `needed` bytes or more.
fn check_backing(id: u32, blob: &Blob, needed: u64) -> Result<(), ResourceError> {
    let has = blob.backed_len();
    let has = has.ok_or(ResourceError::NoBacking(id))?;
    if has < needed {
        let source = BackingError::Short { has, needed };
        return Err(ResourceError::Backing { id, source });
    }
    Ok(())
}
