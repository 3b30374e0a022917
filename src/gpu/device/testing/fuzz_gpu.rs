// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device for the targets in fuzz/, which look into its accounts.

use std::io;
use std::time::Instant;

use crate::backend::continuity::Owner;
use crate::backend::{DeviceContext, Vring};
use crate::gpu::device::{Gpu, HostVisibleMemory};
use crate::gpu::display::ACK_LIMIT;
use crate::gpu::display_info::Resolutions;
use crate::gpu::kept_state::KeptState;
use crate::gpu::renderer::{Renderer, SoftwareRenderer};
#[cfg(feature = "virgl")]
use crate::gpu::renderer::{venus, virgl::testing::fake_virglrenderer};
use crate::gpu::resource::{Budget, PIXEL_LEN};
use crate::gpu::scanout::{DisplayId, ExpectedDisplay};

/// A device, and the budget of its resources.
pub struct FuzzGpu {
    /// The device.
    pub gpu: Gpu,
    budget: Budget,
}

impl FuzzGpu {
    /// A 2D device whose resources may take `max_hostmem` bytes.
    pub fn in_2d(max_hostmem: u64, context: DeviceContext) -> Self {
        let memory = context.memory().clone();
        Self::new(max_hostmem, context, |budget| {
            Box::new(SoftwareRenderer::new(budget, memory))
        })
    }

    /// A 3D device on a fake virglrenderer.
    #[cfg(feature = "virgl")]
    pub fn in_3d(max_hostmem: u64, context: DeviceContext) -> Self {
        Self::new(max_hostmem, context, |budget| {
            Box::new(fake_virglrenderer::renderer(budget))
        })
    }

    /// A device with Vulkan, on a fake virglrenderer and render server.
    #[cfg(feature = "virgl")]
    pub fn with_venus(max_hostmem: u64, context: DeviceContext) -> Self {
        let memory = context.memory().clone();
        Self::new(max_hostmem, context, |budget| {
            Box::new(venus::testing::fuzzed_renderer(&budget, memory))
        })
    }

    /// A 2D device of a process that is kept, with what a predecessor left.
    ///
    /// # Errors
    /// If that cannot be used.
    pub fn kept(max_hostmem: u64, context: DeviceContext) -> io::Result<Self> {
        let memory = context.memory().clone();
        let continuity = context.continuity().clone();
        let arena = continuity.arena(max_hostmem)?;
        let arena = arena.ok_or_else(|| io::Error::other("nothing is kept"))?;
        let kept = KeptState::new(continuity.ledger(Owner::Device), Some(arena.clone()));
        let budget = Budget::new(max_hostmem);
        let renderer = SoftwareRenderer::resume(budget.clone(), memory, kept.clone(), arena);
        let renderer = renderer.map_err(io::Error::other)?;
        let resolutions = Resolutions::default();
        let gpu = Gpu::new(
            context,
            Box::new(renderer),
            &resolutions,
            true,
            &kept,
            HostVisibleMemory::default(),
        )?;
        Ok(Self { gpu, budget })
    }

    /// The pixels of a resource, if there is one with that id.
    pub fn image(&self, id: u32) -> Option<Vec<u8>> {
        let (width, height) = self.size(id)?;
        let image = self.gpu.virtio_gpu.renderer().existing_image(id).ok()??;
        let len = width as usize * height as usize * PIXEL_LEN;
        let pixels = image.lock().bytes(0, 0, len).to_vec();
        Some(pixels)
    }

    /// The pixels of the cursor of a scanout, if it has a shape.
    pub fn cursor(&self, id: u32) -> Option<Vec<u8>> {
        let scanouts = self.gpu.virtio_gpu.scanouts();
        scanouts.cursor_pixels(id).map(|pixels| pixels.to_vec())
    }

    fn new(
        max_hostmem: u64,
        context: DeviceContext,
        renderer: impl FnOnce(Budget) -> Box<dyn Renderer>,
    ) -> Self {
        let budget = Budget::new(max_hostmem);
        let resolutions = Resolutions::default();
        let gpu = Gpu::new(
            context,
            renderer(budget.clone()),
            &resolutions,
            true,
            &KeptState::default(),
            HostVisibleMemory::default(),
        );
        let gpu = gpu.expect("the host has descriptors left");
        Self { gpu, budget }
    }

    /// Bytes of the budget in use.
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes of the budget that are never returned.
    pub fn leaked(&self) -> u64 {
        self.gpu.virtio_gpu.renderer().leaked()
    }

    /// Columns and rows of a resource, if there is one with that id.
    pub fn size(&self, id: u32) -> Option<(u32, u32)> {
        let size = self.gpu.virtio_gpu.renderer().size(id).ok()?;
        Some((size.width, size.height))
    }

    /// The sizes of the scanouts that show something.
    pub fn scanouts(&self) -> Vec<(u32, u32)> {
        let shown = self.gpu.virtio_gpu.scanouts().active_scanouts();
        shown
            .map(|scanout| (scanout.size.width, scanout.size.height))
            .collect()
    }

    /// What the display shows of each scanout once it was sent everything; `None` if it is sent nothing
    /// now.
    pub fn expected_display(&self) -> Option<Vec<ExpectedDisplay>> {
        let scanouts = self.gpu.virtio_gpu.scanouts();
        let driver_is_known = self.gpu.driver_is_known();
        driver_is_known.then(|| scanouts.expected_display(DisplayId::VMM))
    }

    /// What a console shows of each scanout once it was sent everything.
    pub fn expected_console(&self) -> Vec<ExpectedDisplay> {
        let scanouts = self.gpu.virtio_gpu.scanouts();
        scanouts.expected_display(DisplayId::console(0))
    }

    /// Messages that are kept for a display or of one: the most of any.
    pub fn kept_messages(&self) -> usize {
        self.gpu.displays.kept_messages()
    }

    /// Lets the time for all replies of the front-end pass.
    pub fn expire(&mut self, vrings: &[Vring]) {
        let late = Instant::now() + ACK_LIMIT;
        self.gpu.displays.expire(late, &mut self.gpu.log);
        self.gpu.after_event(vrings);
    }
}
