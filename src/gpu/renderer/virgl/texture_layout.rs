// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Targets, formats and mipmaps of resources (virglrenderer, virgl_hw.h).

use crate::gpu::protocol::ResourceCreate3d;

/// Targets that are treated differently (virglrenderer, `enum pipe_texture_target`).
pub(super) const BUFFER: u32 = 0;
pub(super) const TEXTURE_2D: u32 = 2;
pub(super) const TEXTURE_3D: u32 = 3;
pub(super) const TEXTURE_RECT: u32 = 5;

/// Upper bound of the bytes of a texel of `format` (virglrenderer, `enum virgl_formats`).
pub(super) fn texel_len(format: u32) -> u64 {
    match format {
        // Four channels of 8 bits or less, in any order, in any numeric format; depth and stencil.
        1..=8 | 16 | 18..=23 | 67 | 68 | 72 | 77 | 85 | 98..=104 | 121..=125 => 4,
        128 | 129 | 131 | 132 | 134 | 135 | 172..=176 | 180 | 184 | 225 => 4,
        // One or two channels of 8 bits, or one of 16.
        9..=13 | 48 | 64 | 65 | 69 | 70 | 74 | 75 | 91 | 95 | 96 | 177 | 178 | 181 | 182 => 2,
        // Compressed: at most a byte.
        105..=116 => 1,
        // One channel of 32 bits, two of 16; four of 16.
        28 | 49 | 92 | 186 | 190 | 193 | 197 => 4,
        29 | 51 | 94 | 126 | 188 | 192 | 194 | 198 => 8,
        // The largest of GL.
        _ => 32,
    }
}

/// The size of a mipmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Slices or layers.
    pub(super) depth: u32,
}

/// The size of mipmap `level` of a resource; `None` if there is no such level.
pub(super) fn level_size(new: &ResourceCreate3d, level: u32) -> Option<Extent> {
    if level > new.last_level {
        return None;
    }
    let scaled = |side: u32| side.checked_shr(level).unwrap_or(0).max(1);
    let layers = if new.target == TEXTURE_3D {
        scaled(new.depth)
    } else {
        new.array_size.max(new.depth)
    };
    Some(Extent {
        width: scaled(new.width),
        height: scaled(new.height),
        depth: layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::renderer::virgl::testing::new_texture;

    fn extent(width: u32, height: u32, depth: u32) -> Option<Extent> {
        Some(Extent {
            width,
            height,
            depth,
        })
    }

    #[test]
    fn mipmaps_shrink_to_one_texel() {
        let new = ResourceCreate3d {
            last_level: 6,
            target: TEXTURE_3D,
            depth: 8,
            ..new_texture(64, 2)
        };
        assert_eq!(level_size(&new, 0), extent(64, 2, 8));
        assert_eq!(level_size(&new, 2), extent(16, 1, 2));
        assert_eq!(level_size(&new, 6), extent(1, 1, 1));
        assert_eq!(level_size(&new, 7), None);
        let cube = ResourceCreate3d {
            target: 4,
            array_size: 6,
            depth: 1,
            ..new
        };
        assert_eq!(level_size(&cube, 3), extent(8, 1, 6));
    }
}
