//! A device for the targets in fuzz/, which look into its accounts.

use std::time::Instant;

use crate::backend::{DeviceContext, Vring};
use crate::gpu::device::Gpu;
use crate::gpu::display::ACK_LIMIT;
use crate::gpu::display_info::Resolutions;
#[cfg(feature = "virgl")]
use crate::gpu::renderer::virgl::testing::fake_virglrenderer;
use crate::gpu::renderer::{Renderer, SoftwareRenderer};
use crate::gpu::resource::Budget;
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
        Self::new(max_hostmem, context, |budget| {
            Box::new(SoftwareRenderer::new(budget))
        })
    }

    /// A 3D device on a fake virglrenderer.
    #[cfg(feature = "virgl")]
    pub fn in_3d(max_hostmem: u64, context: DeviceContext) -> Self {
        Self::new(max_hostmem, context, |budget| {
            Box::new(fake_virglrenderer::renderer(budget))
        })
    }

    fn new(
        max_hostmem: u64,
        context: DeviceContext,
        renderer: impl FnOnce(Budget) -> Box<dyn Renderer>,
    ) -> Self {
        let budget = Budget::new(max_hostmem);
        let resolutions = Resolutions::default();
        let gpu = Gpu::new(context, renderer(budget.clone()), &resolutions, true);
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
