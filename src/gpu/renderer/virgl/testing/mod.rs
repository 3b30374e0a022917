// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tests and fuzz targets use in place of virglrenderer.

pub(crate) mod fake_virglrenderer;

/// A texture for tests, with one layer, one sample and no mipmaps.
#[cfg(test)]
pub(super) fn new_texture(width: u32, height: u32) -> crate::gpu::protocol::ResourceCreate3d {
    crate::gpu::protocol::ResourceCreate3d {
        id: 1,
        target: super::texture_layout::TEXTURE_2D,
        format: 1,
        bind: 2,
        width,
        height,
        depth: 1,
        array_size: 1,
        last_level: 0,
        samples: 0,
        flags: 0,
    }
}
