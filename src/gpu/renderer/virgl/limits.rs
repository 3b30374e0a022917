// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits of what a VM may create and do with virglrenderer. The longest command stream is
//! `MAX_STREAM_LEN` of `virtio_gpu`, and the longest step is
//! [`MAX_STEP_WORK`](crate::gpu::renderer::MAX_STEP_WORK).

/// Most resources of a VM.
pub(super) const MAX_RESOURCES: usize = 65536;
/// Most contexts of a VM: each program that draws has one.
pub(super) const MAX_CONTEXTS: usize = 256;
/// Most bytes of a buffer.
pub(super) const MAX_BUFFER: u32 = 1 << 30;
/// Most slices, and most layers, of a texture.
pub(super) const MAX_LAYERS: u32 = 2048;
/// Most samples of a texel.
pub(super) const MAX_SAMPLES: u32 = 32;
/// Most iovecs that the library looks at for one call, over all rows. This takes some seconds.
pub(super) const MAX_STEPS: u64 = 1 << 32;
