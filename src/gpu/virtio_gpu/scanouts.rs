//! What the scanouts show: SET_SCANOUT and RESOURCE_FLUSH (virtio 1.2, 5.7.6.8), and how it reaches
//! the display.

use std::sync::Arc;

use super::{CommandError, CommandResult, VirtioGpu};
use crate::gpu::protocol::{ResourceFlush, Response, SetScanout};
use crate::gpu::region::{Rect, Region};
use crate::gpu::renderer::Renderer3d;
use crate::gpu::resource::ResourceError;
use crate::gpu::scanout::{DisplayId, DmabufSupport, ScanoutSource};

impl VirtioGpu {
    /// SET_SCANOUT.
    pub(super) fn set_scanout(&mut self, set: &SetScanout) -> Result<CommandResult, CommandError> {
        let SetScanout {
            rect,
            scanout,
            resource,
        } = *set;
        if resource == 0 {
            self.scanouts.disable(scanout);
            return Ok(Response::OkNoData.into());
        }
        let size = self.renderer.check_within(resource, rect)?;
        if rect.is_empty() {
            return Err(CommandError::EmptyScanout(rect));
        }
        let image = self.renderer.image(resource)?;
        if !self.scanouts.shows(scanout, &image, &rect) {
            // Front-ends show all of a dmabuf, whatever part they are told.
            let dmabuf = if rect == Rect::from(size) {
                self.renderer.export(resource).map(Arc::new)
            } else {
                None
            };
            let view = ScanoutSource {
                resource,
                image,
                rect,
                dmabuf,
            };
            self.scanouts.show(scanout, view);
        }
        Ok(Response::OkNoData.into())
    }

    /// RESOURCE_FLUSH.
    pub(super) fn flush(&mut self, flush: &ResourceFlush) -> Result<CommandResult, CommandError> {
        let ResourceFlush { rect, resource } = *flush;
        self.renderer.check_within(resource, rect)?;
        let Some(image) = self.renderer.scanout_image(resource)? else {
            // It never was on a scanout.
            return Ok(Response::OkNoData.into());
        };
        let wanted = self.scanouts.region_to_flush(&image, &rect);
        let mut changed = Region::default();
        let result = self.renderer.read_back(resource, &wanted, &mut changed);
        self.scanouts.add_damage(&image, &changed);
        result?;
        self.scanouts.flush(&image, &rect);
        self.follow_drawing();
        Ok(Response::OkNoData.into())
    }

    /// Has dmabufs sent whose drawing is done, and waits for the drawing of those flushed since. Only
    /// on the renderer's thread.
    pub(crate) fn follow_drawing(&mut self) {
        if let Some(fence) = self.scanouts.fence()
            && self.renderer.as_3d().is_none_or(|r| r.is_retired(fence))
        {
            self.scanouts.flush_done();
        }
        if self.scanouts.wants_fence() {
            let fence = self.renderer.as_3d().and_then(Renderer3d::fence);
            self.scanouts.await_flush(fence);
            if fence.is_none() {
                self.scanouts.flush_done();
            }
        }
    }

    /// `display` supports these dmabufs from now on: reads the pixels of the scanouts that it is no
    /// longer sent as dmabufs. Only on the renderer's thread.
    ///
    /// # Errors
    /// If pixels cannot be read; they are tried again with the next flush. The other scanouts are
    /// read.
    pub(crate) fn set_dmabuf_support(
        &mut self,
        display: DisplayId,
        support: DmabufSupport,
    ) -> Result<(), ResourceError> {
        self.scanouts.set_dmabuf_support(display, support);
        let mut result = Ok(());
        while let Some(readback) = self.scanouts.needs_readback() {
            let mut wanted = Region::default();
            wanted.add(readback.rect);
            let mut changed = Region::default();
            let read = self
                .renderer
                .read_back(readback.resource, &wanted, &mut changed);
            // Other scanouts that show a part of it do so by pixels, and are sent this with their
            // next flush.
            if let Ok(Some(image)) = self.renderer.scanout_image(readback.resource) {
                self.scanouts.add_damage(&image, &changed);
            }
            self.scanouts.readback_done(&readback, read.is_ok());
            if read.is_err() {
                result = read;
            }
        }
        result
    }
}
