// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that show resources on scanouts, by pixels or as dmabufs: SET_SCANOUT and RESOURCE_FLUSH
//! (virtio 1.2, 5.7.6.8).

use std::sync::Arc;

use super::late_flushes::LateFlushes;
use super::{CommandError, blobs};
use crate::geometry::Rect;
use crate::gpu::protocol::{ResourceFlush, Response, SetScanout};
use crate::gpu::region::Region;
use crate::gpu::renderer::Renderer;
use crate::gpu::resource::{PixelSource, ResourceError};
use crate::gpu::scanout::{DisplayId, DmabufSupport, ScanoutSource, Scanouts};

/// SET_SCANOUT.
pub(super) fn set_scanout(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    set: &SetScanout,
) -> Result<Response, CommandError> {
    let SetScanout {
        rect,
        scanout,
        resource,
    } = *set;
    if resource == 0 {
        scanouts.disable(scanout);
        return Ok(Response::OkNoData);
    }
    let size = renderer.check_within(resource, rect)?;
    if rect.is_empty() {
        return Err(CommandError::EmptyScanout(rect));
    }
    let pixels = PixelSource::Image(renderer.image_or_create(resource)?);
    if !scanouts.shows(scanout, &pixels, &rect) {
        // Front-ends show all of a dmabuf, whatever part they are told.
        let dmabuf = if rect == Rect::from(size) {
            renderer.export(resource).map(Arc::new)
        } else {
            None
        };
        let source = ScanoutSource {
            resource,
            pixels,
            rect,
            dmabuf,
        };
        scanouts.show(scanout, source);
    }
    Ok(Response::OkNoData)
}

/// RESOURCE_FLUSH.
pub(super) fn flush(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    late_flushes: &mut LateFlushes,
    flush: &ResourceFlush,
) -> Result<Response, CommandError> {
    let ResourceFlush { rect, resource } = *flush;
    if let Some(blob) = renderer.blob(resource) {
        return blobs::flush(scanouts, late_flushes, resource, blob, rect);
    }
    renderer.check_within(resource, rect)?;
    let Some(image) = renderer.existing_image(resource)? else {
        // It never was on a scanout.
        return Ok(Response::OkNoData);
    };
    let wanted = scanouts.region_to_flush(&image, &rect);
    let mut changed = Region::default();
    let result = renderer.read_back(resource, &wanted, &mut changed);
    scanouts.add_damage(&image, &changed);
    result?;
    scanouts.flush(&image, &rect);
    follow_drawing(renderer, scanouts);
    Ok(Response::OkNoData)
}

/// Sends the flushed dmabufs that are drawn, and waits for the drawing of those flushed since.
pub(super) fn follow_drawing(renderer: &mut dyn Renderer, scanouts: &mut Scanouts) {
    let is_retired = |fence| renderer.as_3d().is_none_or(|r| r.is_retired(fence));
    if scanouts.drawing_fence().is_some_and(is_retired) {
        scanouts.drawing_done();
    }
    if scanouts.wants_fence() {
        let fence = renderer.as_3d().and_then(|r| r.fence(None));
        scanouts.await_drawing(fence);
        if fence.is_none() {
            scanouts.drawing_done();
        }
    }
}

/// Sets which dmabufs `display` supports, and reads the pixels of the scanouts that it is no longer sent
/// as dmabufs.
///
/// # Errors
/// If pixels cannot be read; they are tried again with the next flush. The other scanouts are read.
pub(super) fn set_dmabuf_support(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    display: DisplayId,
    support: DmabufSupport,
) -> Result<(), ResourceError> {
    scanouts.set_dmabuf_support(display, support);
    let mut result = Ok(());
    while let Some(readback) = scanouts.next_readback() {
        let mut wanted = Region::default();
        wanted.add(readback.rect);
        let mut changed = Region::default();
        let read = renderer.read_back(readback.resource, &wanted, &mut changed);
        // Other scanouts that show a part of the resource show its pixels. Their next flush sends this
        // damage.
        if let Ok(Some(image)) = renderer.existing_image(readback.resource) {
            scanouts.add_damage(&image, &changed);
        }
        scanouts.readback_done(&readback, read.is_ok());
        if read.is_err() {
            result = read;
        }
    }
    result
}
