//! Bounds of 3D resources and their transfers, and the cost of resources in the VM's budget.

use crate::gpu::protocol::{ResourceCreate3d, Transfer3d};
use crate::gpu::resource::MAX_SIDE;

/// Targets that are treated differently (virglrenderer, `enum pipe_texture_target`).
pub(super) const BUFFER: u32 = 0;
pub(super) const TEXTURE_2D: u32 = 2;
pub(super) const TEXTURE_3D: u32 = 3;
pub(super) const TEXTURE_RECT: u32 = 5;

/// Most bytes of a buffer.
const MAX_BUFFER: u32 = 1 << 30;
/// Most slices, and most layers, of a texture.
const MAX_LAYERS: u32 = 2048;
/// Most samples of a texel.
const MAX_SAMPLES: u32 = 32;

/// Bytes for a resource besides its texels, here and in the library, rounded up.
const OVERHEAD: u64 = 2048;

/// Upper bound of the host memory that a resource needs, in bytes; `None` if it is out of bounds.
pub(super) fn cost(new: &ResourceCreate3d) -> Option<u64> {
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

/// Upper bound of the bytes of a texel of `format` (virglrenderer, `enum virgl_formats`).
fn texel_len(format: u32) -> u64 {
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

/// Whether the library computes the end of a transfer in its backing without overflow. It uses 32 bits:
/// after an overflow, it would accept a transfer beyond the end.
pub(super) fn is_computable(new: &ResourceCreate3d, transfer: &Transfer3d) -> bool {
    let Some(level) = level_size(new, transfer.level) else {
        return false;
    };
    let part = &transfer.part;
    let row_of = |width: u32| u64::from(width).saturating_mul(texel_len(new.format));
    let row = row_of(level.width);
    let stride = match transfer.stride {
        0 => row,
        stride => stride.into(),
    };
    let layer = match transfer.layer_stride {
        0 => stride.saturating_mul(level.height.into()),
        layer => layer.into(),
    };
    let steps = |count: u32, length: u64| u64::from(count.saturating_sub(1)).saturating_mul(length);
    let reach = steps(part.depth, layer)
        .saturating_add(steps(part.height, stride))
        .saturating_add(row.max(row_of(part.width)))
        .saturating_add(transfer.offset);
    reach <= u32::MAX.into()
}

/// Number of iovecs that the library looks at for a transfer with `iovecs` of them: all, for each row.
pub(super) fn steps(transfer: &Transfer3d, iovecs: usize) -> u64 {
    let rows = u64::from(transfer.part.height).saturating_mul(transfer.part.depth.into());
    rows.saturating_mul(iovecs as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::protocol::Box3;

    fn texture(width: u32, height: u32) -> ResourceCreate3d {
        ResourceCreate3d {
            id: 1,
            target: TEXTURE_2D,
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

    #[test]
    fn sizes_are_bounded() {
        let good = texture(MAX_SIDE, MAX_SIDE);
        assert_eq!(cost(&good), Some((1 << 30) + OVERHEAD));
        let wrong = [
            texture(MAX_SIDE + 1, 1),
            texture(1, u32::MAX),
            texture(0, 1),
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
            assert_eq!(cost(&new), None, "{new:?}");
        }
        let buffer = ResourceCreate3d {
            target: BUFFER,
            ..texture(MAX_BUFFER, 1)
        };
        assert_eq!(cost(&buffer), Some((1 << 30) + OVERHEAD));
    }

    #[test]
    fn samples_layers_and_mipmaps_are_charged() {
        let plain = texture(64, 64);
        let base = 64 * 64 * 4;
        let bytes = |new: ResourceCreate3d| cost(&new).map(|c| c - OVERHEAD);
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
            ..texture(64, 1)
        };
        assert!(bytes(line).is_some_and(|b| b >= 127 * 4));
    }

    #[test]
    fn transfers_beyond_32_bits_are_not_computable() {
        let new = ResourceCreate3d {
            target: TEXTURE_3D,
            depth: 64,
            ..texture(64, 64)
        };
        let good = Transfer3d {
            part: Box3 {
                width: 64,
                height: 64,
                depth: 64,
                ..Box3::default()
            },
            offset: 0,
            id: 1,
            level: 0,
            stride: 0,
            layer_stride: 0,
        };
        assert!(is_computable(&new, &good));
        let wrong = [
            Transfer3d {
                stride: u32::MAX,
                ..good
            },
            Transfer3d {
                stride: 1 << 27,
                ..good
            },
            Transfer3d {
                layer_stride: 1 << 27,
                ..good
            },
            Transfer3d {
                offset: u64::MAX,
                ..good
            },
            Transfer3d { level: 1, ..good },
            // Of a stream, which is not checked against the resource yet.
            Transfer3d {
                part: Box3 {
                    width: 1 << 30,
                    ..good.part
                },
                ..good
            },
        ];
        for transfer in wrong {
            assert!(!is_computable(&new, &transfer), "{transfer:?}");
        }
        let largest = texture(MAX_SIDE, MAX_SIDE);
        let whole = Transfer3d {
            part: Box3 {
                width: MAX_SIDE,
                height: MAX_SIDE,
                depth: 1,
                ..Box3::default()
            },
            ..good
        };
        assert!(is_computable(&largest, &whole));
    }

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
            ..texture(64, 2)
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
