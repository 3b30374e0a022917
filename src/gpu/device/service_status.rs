// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the `STATUS=` line says of the scanouts.

use std::fmt::Write as _;

use crate::backend::DeviceContext;
use crate::gpu::scanout::{ActiveScanout, Shown};
use crate::gpu::virtio_gpu::VirtioGpu;

/// The `STATUS=` line, and the scanouts and the renderer that it was made of last.
pub(super) struct GpuStatus {
    context: DeviceContext,
    scanouts: Vec<ActiveScanout>,
    renderer: Option<String>,
}

impl GpuStatus {
    /// Nothing is said of `renderer` before a scanout is shown, or it changes.
    pub(super) fn new(context: DeviceContext, renderer: Option<&str>) -> Self {
        Self {
            context,
            scanouts: Vec::new(),
            renderer: renderer.map(str::to_owned),
        }
    }

    /// Updates the line if what the scanouts show has changed, or the renderer.
    pub(super) fn publish(&mut self, virtio_gpu: &VirtioGpu) {
        let active = || virtio_gpu.scanouts().active_scanouts();
        let renderer = virtio_gpu.renderer_name();
        if self.scanouts.iter().copied().eq(active()) && self.renderer.as_deref() == renderer {
            return;
        }
        self.renderer = renderer.map(str::to_owned);
        self.scanouts = active().collect();
        self.context.status(self.text(self.renderer.as_deref()));
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
