//! A device whose accounts can be looked at.

use std::time::Instant;

use super::super::renderer::Renderer;
#[cfg(feature = "virgl")]
use super::super::renderer::virgl::testing::fake_virglrenderer;
use super::super::scanout::{DisplayId, ExpectedDisplay};
use super::*;

/// A device, and the budget that its resources take their memory from.
pub struct Bench {
    /// The device.
    pub gpu: Gpu,
    budget: Budget,
}

impl Bench {
    /// A 2D device whose resources may take `max_hostmem` bytes.
    pub fn in_2d(max_hostmem: u64, context: DeviceContext) -> Self {
        Self::new(max_hostmem, context, |budget| {
            Box::new(SoftwareRenderer::new(budget))
        })
    }

    /// A 3D device on a stand-in for virglrenderer.
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
        let gpu = Gpu::new(context, renderer(budget.clone()));
        let gpu = gpu.expect("the host has descriptors left");
        Self { gpu, budget }
    }

    /// Bytes of the budget in use.
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes of the budget that never come back.
    pub fn lost(&self) -> u64 {
        self.gpu.state.renderer().lost()
    }

    /// Columns and rows of a resource, where there is one with that id.
    pub fn size(&self, id: u32) -> Option<(u32, u32)> {
        let size = self.gpu.state.renderer().size(id).ok()?;
        Some((size.width, size.height))
    }

    /// The sizes of the scanouts that show something.
    pub fn scanouts(&self) -> Vec<(u32, u32)> {
        let shown = self.gpu.state.scanouts().active_scanouts();
        shown
            .map(|scanout| (scanout.size.width, scanout.size.height))
            .collect()
    }

    /// What a display has of each scanout once it was sent everything; `None` where it is sent
    /// nothing now.
    pub fn expected_display(&self) -> Option<Vec<ExpectedDisplay>> {
        let scanouts = self.gpu.state.scanouts();
        let is_settled = self.gpu.is_settled();
        is_settled.then(|| scanouts.expected_display(DisplayId::VMM))
    }

    /// Has the time for all answers of the front-end be over.
    pub fn expire(&mut self, vrings: &[Vring]) {
        self.gpu.display.expire(Instant::now() + UPDATE_LIMIT);
        self.gpu.take_answer();
        self.gpu.update_dmabuf_support();
        self.gpu.serve(vrings);
    }
}
