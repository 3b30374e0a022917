// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the device, and how it is built of them.

use std::io;

use conventions::GpuMemory;

use super::{Gpu, HostVisibleMemory};
use crate::backend::continuity::Owner;
use crate::backend::{DeviceBuilder, DeviceContext, SandboxPolicy};
use crate::gpu::display_info::Resolutions;
use crate::gpu::kept_state::KeptState;
use crate::gpu::renderer::{Renderer, SoftwareRenderer};
#[cfg(feature = "virgl")]
use crate::gpu::renderer::{VenusRenderer, VirglRenderer, venus, virgl};
use crate::gpu::resource::{Budget, keep_freed_lists};

/// Options of the device.
#[derive(Debug, Default)]
pub struct Options {
    /// Limit on host memory used by guest resources, in bytes. By default 512 MiB in 2D and 2 GiB in
    /// 3D.
    pub max_hostmem: Option<u64>,
    /// The sizes of the guest's heads where the VMM gives no display.
    pub resolutions: Resolutions,
    /// Whether consoles may ask for other sizes, where the VMM gives no display.
    pub allow_resize: bool,
    /// How many of the guest's addresses are for memory of the host, where the renderer has such.
    pub host_visible_memory: HostVisibleMemory,
    /// 3D by virglrenderer, and its options.
    #[cfg(feature = "virgl")]
    pub virgl: Option<virgl::Options>,
    /// Vulkan by Venus, and its options, instead of `virgl`.
    #[cfg(feature = "virgl")]
    pub venus: Option<venus::Options>,
    /// Native contexts, and their options, instead of both.
    #[cfg(feature = "virgl")]
    pub native_context: Option<venus::NativeContextOptions>,
}

impl DeviceBuilder for Options {
    type Device = Gpu;
    type Error = io::Error;

    #[cfg(feature = "virgl")]
    fn sandbox_policy(&self) -> SandboxPolicy {
        let virgl = self.virgl.as_ref().map(virgl::Options::sandbox_policy);
        let venus = self.venus.as_ref().map(venus::Options::sandbox_policy);
        let native = self.native_context.as_ref();
        let native = native.map(venus::NativeContextOptions::sandbox_policy);
        native.or(venus).or(virgl).unwrap_or_default()
    }

    #[cfg(not(feature = "virgl"))]
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }

    fn build(mut self, context: DeviceContext) -> io::Result<Gpu> {
        let (renderer, kept) = self.renderer(&context)?;
        Gpu::new(
            context,
            renderer,
            &self.resolutions,
            self.allow_resize,
            &kept,
            self.host_visible_memory,
        )
    }
}

impl Options {
    /// The renderer, and what it keeps for a successor: nothing in 3D.
    fn renderer(&mut self, context: &DeviceContext) -> io::Result<(Box<dyn Renderer>, KeptState)> {
        let max_hostmem = self.max_hostmem;
        let limit = |default: GpuMemory| max_hostmem.unwrap_or(default.max_hostmem);
        let memory = context.memory().clone();
        #[cfg(feature = "virgl")]
        if let Some(options) = self.venus.take() {
            let budget = Budget::new(limit(GpuMemory::VENUS));
            let renderer = VenusRenderer::new(options, budget, memory).map_err(io::Error::other)?;
            return Ok((Box::new(renderer), KeptState::default()));
        }
        #[cfg(feature = "virgl")]
        if let Some(options) = self.native_context.take() {
            let budget = Budget::new(limit(GpuMemory::VENUS));
            let renderer = venus::native_context::renderer(options, budget, memory)
                .map_err(io::Error::other)?;
            return Ok((Box::new(renderer), KeptState::default()));
        }
        #[cfg(feature = "virgl")]
        if let Some(options) = self.virgl.take() {
            let budget = Budget::new(limit(GpuMemory::VIRGL));
            let renderer = VirglRenderer::new(options, budget).map_err(io::Error::other)?;
            return Ok((Box::new(renderer), KeptState::default()));
        }
        let max_hostmem = limit(GpuMemory::TWO_D);
        let budget = Budget::new(max_hostmem);
        let continuity = context.continuity();
        let arena = continuity.arena(max_hostmem)?;
        let kept = KeptState::new(continuity.ledger(Owner::Device), arena.clone());
        keep_freed_lists();
        let renderer = match arena {
            Some(arena) => SoftwareRenderer::resume(budget, memory, kept.clone(), arena)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?,
            None => SoftwareRenderer::new(budget, memory),
        };
        Ok((Box::new(renderer), kept))
    }
}
