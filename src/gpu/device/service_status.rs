// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the `STATUS=` line says of the scanouts.

use std::fmt::Write as _;

use crate::backend::DeviceContext;
use crate::gpu::scanout::{ActiveScanout, Shown};
use crate::gpu::virtio_gpu::VirtioGpu;

/// The `STATUS=` line, and the scanouts that it was made of last.
pub(super) struct GpuStatus {
    context: DeviceContext,
    scanouts: Vec<ActiveScanout>,
}

impl GpuStatus {
    pub(super) fn new(context: DeviceContext) -> Self {
        Self {
            context,
            scanouts: Vec::new(),
        }
    }

    /// Updates the line if what the scanouts show has changed.
    pub(super) fn publish(&mut self, virtio_gpu: &VirtioGpu) {
        let active = || virtio_gpu.scanouts().active_scanouts();
        if self.scanouts.iter().copied().eq(active()) {
            return;
        }
        self.scanouts = active().collect();
        self.context.status(self.text(virtio_gpu.renderer_name()));
    }

    /// The sizes of the scanouts; the renderer, if there is a choice, and how displays show what it
    /// draws.
    fn text(&self, renderer: Option<&str>) -> String {
        let mut text = String::new();
        for (i, scanout) in self.scanouts.iter().enumerate() {
            let separator = if i == 0 { "" } else { " + " };
            let _ = write!(text, "{separator}{}", scanout.size);
        }
        if let Some(renderer) = renderer {
            let is_unseen = |scanout: &ActiveScanout| scanout.shown == Shown::Nowhere;
            let by_dmabuf = |scanout: &ActiveScanout| scanout.shown == Shown::Dmabuf;
            let how = match () {
                () if self.scanouts.is_empty() => "",
                () if self.scanouts.iter().all(is_unseen) => ", no display",
                () if self.scanouts.iter().all(by_dmabuf) => ", screens as dmabufs",
                () if self.scanouts.iter().any(by_dmabuf) => ", some screens as dmabufs",
                () => ", screens read back",
            };
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{renderer}{how}");
        }
        text
    }
}
