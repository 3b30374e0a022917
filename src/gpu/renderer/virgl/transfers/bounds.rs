// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arithmetic of transfers that the library does not check itself.

use crate::gpu::protocol::{ResourceCreate3d, Transfer3d};
use crate::gpu::renderer::virgl::texture_layout::{level_size, texel_len};

/// Whether the library computes the end of a transfer in its backing without overflow. It uses 32 bits:
/// after an overflow, it would accept a transfer beyond the end.
pub(in crate::gpu::renderer::virgl) fn end_fits_32_bits(
    new: &ResourceCreate3d,
    transfer: &Transfer3d,
) -> bool {
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
pub(in crate::gpu::renderer::virgl) fn iovec_steps(transfer: &Transfer3d, iovecs: usize) -> u64 {
    let rows = u64::from(transfer.part.height).saturating_mul(transfer.part.depth.into());
    rows.saturating_mul(iovecs as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::protocol::Box3;
    use crate::gpu::renderer::virgl::testing::new_texture;
    use crate::gpu::renderer::virgl::texture_layout::TEXTURE_3D;
    use crate::gpu::resource::MAX_SIDE;

    #[test]
    fn transfers_beyond_32_bits_are_found() {
        let new = ResourceCreate3d {
            target: TEXTURE_3D,
            depth: 64,
            ..new_texture(64, 64)
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
        assert!(end_fits_32_bits(&new, &good));
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
            assert!(!end_fits_32_bits(&new, &transfer), "{transfer:?}");
        }
        let largest = new_texture(MAX_SIDE, MAX_SIDE);
        let whole = Transfer3d {
            part: Box3 {
                width: MAX_SIDE,
                height: MAX_SIDE,
                depth: 1,
                ..Box3::default()
            },
            ..good
        };
        assert!(end_fits_32_bits(&largest, &whole));
    }
}
