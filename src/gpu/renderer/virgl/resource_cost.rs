// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bounds of a resource's size, and its cost in the VM's budget.

use crate::gpu::protocol::ResourceCreate3d;
use crate::gpu::resource::MAX_SIDE;

use super::limits::{MAX_BUFFER, MAX_LAYERS, MAX_SAMPLES};
use super::texture_layout::{BUFFER, texel_len};

/// Bytes for a resource besides its texels, here and in the library, rounded up.
const OVERHEAD: u64 = 2048;

/// Upper bound of the host memory that a resource needs, in bytes; `None` if it is out of bounds.
pub(super) fn resource_cost(new: &ResourceCreate3d) -> Option<u64> {
    let bounds = if new.target == BUFFER {
        [MAX_BUFFER, 1, 1, 1]
    } else {
        [MAX_SIDE, MAX_SIDE, MAX_LAYERS, MAX_LAYERS]
    };
    let sizes = [new.width, new.height, new.depth, new.array_size];
    let mut texels: u64 = 1;
    for (size, most) in sizes.into_iter().zip(bounds) {
        if size == 0 || size > most {
            return None;
        }
        texels = texels.saturating_mul(size.into());
    }
    if new.samples > MAX_SAMPLES || new.last_level > MAX_SIDE.ilog2() {
        return None;
    }
    if new.target == BUFFER {
        return Some(texels.saturating_add(OVERHEAD));
    }
    let mut bytes = texels
        .saturating_mul(texel_len(new.format))
        .saturating_mul(new.samples.max(1).into());
    if new.last_level != 0 {
        // Each mipmap has at most half the texels of the next larger one.
        bytes = bytes.saturating_mul(2);
    }
    Some(bytes.saturating_add(OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::renderer::virgl::testing::new_texture;

    #[test]
    fn sizes_are_bounded() {
        let good = new_texture(MAX_SIDE, MAX_SIDE);
        assert_eq!(resource_cost(&good), Some((1 << 30) + OVERHEAD));
        let wrong = [
            new_texture(MAX_SIDE + 1, 1),
            new_texture(1, u32::MAX),
            new_texture(0, 1),
            ResourceCreate3d { depth: 0, ..good },
            ResourceCreate3d {
                depth: 2049,
                ..good
            },
            ResourceCreate3d {
                array_size: u32::MAX,
                ..good
            },
            ResourceCreate3d {
                samples: 33,
                ..good
            },
            ResourceCreate3d {
                last_level: 15,
                ..good
            },
            ResourceCreate3d {
                target: BUFFER,
                ..good
            },
        ];
        for new in wrong {
            assert_eq!(resource_cost(&new), None, "{new:?}");
        }
        let buffer = ResourceCreate3d {
            target: BUFFER,
            ..new_texture(MAX_BUFFER, 1)
        };
        assert_eq!(resource_cost(&buffer), Some((1 << 30) + OVERHEAD));
    }

    #[test]
    fn samples_layers_and_mipmaps_are_charged() {
        let plain = new_texture(64, 64);
        let base = 64 * 64 * 4;
        let bytes = |new: ResourceCreate3d| resource_cost(&new).map(|c| c - OVERHEAD);
        assert_eq!(bytes(plain), Some(base));
        let samples = ResourceCreate3d {
            samples: 8,
            ..plain
        };
        assert_eq!(bytes(samples), Some(8 * base));
        let layers = ResourceCreate3d {
            array_size: 6,
            ..plain
        };
        assert_eq!(bytes(layers), Some(6 * base));
        let unknown = ResourceCreate3d {
            format: 9999,
            ..plain
        };
        assert_eq!(bytes(unknown), Some(8 * base));
        // The mipmaps of one row: 64 + 32 + 16 + ... + 1 texels.
        let line = ResourceCreate3d {
            last_level: 6,
            ..new_texture(64, 1)
        };
        assert!(bytes(line).is_some_and(|b| b >= 127 * 4));
    }
}
