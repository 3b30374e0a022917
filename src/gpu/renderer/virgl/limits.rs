//! How large 3D resources may be, and what they take of the VM's budget.

use crate::gpu::protocol::{Create3d, Transfer3d};
use crate::gpu::resource::MAX_SIDE;

/// `enum pipe_texture_target`, as far as they differ here.
pub(super) const BUFFER: u32 = 0;
pub(super) const TEXTURE_2D: u32 = 2;
pub(super) const TEXTURE_3D: u32 = 3;
pub(super) const TEXTURE_RECT: u32 = 5;

/// Most bytes of a buffer.
const MAX_BUFFER: u32 = 1 << 30;
/// Most slices, and most layers.
const MAX_LAYERS: u32 = 2048;
/// Most samples of a texel.
const MAX_SAMPLES: u32 = 32;

/// What a resource takes besides its texels, here and in the library, rounded up.
const OVERHEAD: u64 = 2048;

/// Most bytes of host memory that a resource takes; `None` where it is out of bounds.
pub(super) fn cost(new: &Create3d) -> Option<u64> {
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
        // Each mipmap is at most half of the one before it, where only one side shrinks.
        bytes = bytes.saturating_mul(2);
    }
    Some(bytes.saturating_add(OVERHEAD))
}

/// Bytes of a texel of `format` (`enum virgl_formats`), or more.
fn texel_len(format: u32) -> u64 {
    match format {
        // Four channels of 8 bits or less, in any order, in any numeric format; depth and stencil.
        1..=8 | 16 | 18..=23 | 67 | 68 | 72 | 77 | 85 | 98..=104 | 121..=125 => 4,
        128 | 129 | 131 | 132 | 134 | 135 | 172..=176 | 180 | 184 | 225 => 4,
        // One or two channels of 8 bits, or one of 16.
        9..=13 | 48 | 64 | 65 | 69 | 70 | 74 | 75 | 91 | 95 | 96 | 177 | 178 | 181 | 182 => 2,
        // Compressed: no more than a byte.
        105..=116 => 1,
        // One channel of 32 bits, two of 16; four of 16.
        28 | 49 | 92 | 186 | 190 | 193 | 197 => 4,
        29 | 51 | 94 | 126 | 188 | 192 | 194 | 198 => 8,
        // The largest that GL has.
        _ => 32,
    }
}

/// Columns, rows and slices or layers of one of a resource's mipmaps.
pub(super) fn level_size(new: &Create3d, level: u32) -> Option<(u32, u32, u32)> {
    if level > new.last_level {
        return None;
    }
    let smaller = |side: u32| side.checked_shr(level).unwrap_or(0).max(1);
    let layers = if new.target == TEXTURE_3D {
        smaller(new.depth)
    } else {
        new.array_size.max(new.depth)
    };
    Some((smaller(new.width), smaller(new.height), layers))
}

/// Whether the library can be trusted with how far a transfer reaches in its backing: it computes
/// that with 32 bits, and a stride that makes them overflow would lead it beyond the end.
pub(super) fn is_computable(new: &Create3d, transfer: &Transfer3d) -> bool {
    let Some((width, height, _)) = level_size(new, transfer.level) else {
        return false;
    };
    let part = &transfer.part;
    let row_of = |width: u32| u64::from(width).saturating_mul(texel_len(new.format));
    let row = row_of(width);
    let stride = match transfer.stride {
        0 => row,
        given => given.into(),
    };
    let layer = match transfer.layer_stride {
        0 => stride.saturating_mul(height.into()),
        given => given.into(),
    };
    let steps = |count: u32, length: u64| u64::from(count.saturating_sub(1)).saturating_mul(length);
    let reach = steps(part.depth, layer)
        .saturating_add(steps(part.height, stride))
        .saturating_add(row.max(row_of(part.width)))
        .saturating_add(transfer.offset);
    reach <= u32::MAX.into()
}

/// How many vectors the library looks at for a transfer by `vectors` of them: for each row all of them.
pub(super) fn steps(transfer: &Transfer3d, vectors: usize) -> u64 {
    let rows = u64::from(transfer.part.height).saturating_mul(transfer.part.depth.into());
    rows.saturating_mul(vectors as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::protocol::Box3;

    fn texture(width: u32, height: u32) -> Create3d {
        Create3d {
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
            Create3d { depth: 0, ..good },
            Create3d {
                depth: 2049,
                ..good
            },
            Create3d {
                array_size: u32::MAX,
                ..good
            },
            Create3d {
                samples: 33,
                ..good
            },
            Create3d {
                last_level: 15,
                ..good
            },
            Create3d {
                target: BUFFER,
                ..good
            },
        ];
        for new in wrong {
            assert_eq!(cost(&new), None, "{new:?}");
        }
        let buffer = Create3d {
            target: BUFFER,
            ..texture(MAX_BUFFER, 1)
        };
        assert_eq!(cost(&buffer), Some((1 << 30) + OVERHEAD));
    }

    #[test]
    fn everything_that_multiplies_is_charged() {
        let plain = texture(64, 64);
        let base = 64 * 64 * 4;
        let bytes = |new: Create3d| cost(&new).map(|c| c - OVERHEAD);
        assert_eq!(bytes(plain), Some(base));
        let samples = Create3d {
            samples: 8,
            ..plain
        };
        assert_eq!(bytes(samples), Some(8 * base));
        let layers = Create3d {
            array_size: 6,
            ..plain
        };
        assert_eq!(bytes(layers), Some(6 * base));
        let unknown = Create3d {
            format: 9999,
            ..plain
        };
        assert_eq!(bytes(unknown), Some(8 * base));
        // The mipmaps of a line: 64 + 32 + 16 + ... + 1 texels.
        let line = Create3d {
            last_level: 6,
            ..texture(64, 1)
        };
        assert!(bytes(line).is_some_and(|b| b >= 127 * 4));
    }

    #[test]
    fn a_reach_beyond_32_bits_is_not_computable() {
        let new = Create3d {
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
            // In a stream, nobody has compared it with the resource yet.
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

    #[test]
    fn mipmaps_shrink_to_one_texel() {
        let new = Create3d {
            last_level: 6,
            target: TEXTURE_3D,
            depth: 8,
            ..texture(64, 2)
        };
        assert_eq!(level_size(&new, 0), Some((64, 2, 8)));
        assert_eq!(level_size(&new, 2), Some((16, 1, 2)));
        assert_eq!(level_size(&new, 6), Some((1, 1, 1)));
        assert_eq!(level_size(&new, 7), None);
        let cube = Create3d {
            target: 4,
            array_size: 6,
            depth: 1,
            ..new
        };
        assert_eq!(level_size(&cube, 3), Some((8, 1, 6)));
    }
}
