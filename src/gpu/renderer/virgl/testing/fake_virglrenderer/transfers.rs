// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Transfers of the fake library: they check bounds, and touch the guest's memory.

use std::ffi::{c_int, c_uint};
use std::slice;

use virglrenderer_sys as sys;

use crate::gpu::renderer::virgl::guest_iovecs::IoVec;

use super::resources::touch;
use super::state::{EINVAL, state};

/// Most iovecs that the library may have to look at for several rows.
const MAX_STEPS: usize = 1 << 18;

fn level(side: u32, level: u32) -> u32 {
    side.checked_shr(level).unwrap_or(0).max(1)
}

/// Bytes from a transfer's offset to its end in its iovecs, computed as the library does, but with 64
/// bits.
pub(super) fn reach(
    args: &sys::virgl_renderer_resource_create_args,
    mip: u32,
    stride: u32,
    layer_stride: u32,
    [_, _, _, width, height, depth]: [u32; 6],
) -> u64 {
    let texel: u64 = match args.format {
        1..=4 | 67 | 68 | 121 | 134 => 4,
        _ => 16,
    };
    let row = |width: u32| u64::from(width).saturating_mul(texel);
    let stride = match stride {
        0 => row(level(args.width, mip)),
        given => given.into(),
    };
    let layer = match layer_stride {
        0 => stride.saturating_mul(level(args.height, mip).into()),
        given => given.into(),
    };
    let steps = |count: u32, len: u64| u64::from(count.saturating_sub(1)).saturating_mul(len);
    let rows = steps(height, stride).saturating_add(row(width));
    steps(depth, layer).saturating_add(rows)
}

/// Asserts that a transfer is within its resource, and refuses one beyond its iovecs: the renderer
/// leaves this check to the library.
fn transfer(
    id: u32,
    context: u32,
    mip: u32,
    strides: [u32; 2],
    part: [u32; 6],
    offset: u64,
    own: Option<&[IoVec]>,
) -> c_int {
    state(|state| {
        let resource = state.resources.get(&id).expect("a known resource");
        let args = &resource.args;
        assert!(context == 0 || state.contexts.contains(&context));
        assert!(mip <= args.last_level, "level {mip} of {args:?}");
        let layers = if args.target == 3 {
            level(args.depth, mip)
        } else {
            args.array_size.max(args.depth)
        };
        let [x, y, z, width, height, depth] = part.map(u64::from);
        assert!(width != 0 && height != 0 && depth != 0, "an empty {part:?}");
        assert!(
            x + width <= level(args.width, mip).into(),
            "{part:?} {args:?}"
        );
        assert!(
            y + height <= level(args.height, mip).into(),
            "{part:?} {args:?}"
        );
        assert!(z + depth <= layers.into(), "{part:?} {args:?}");
        let reach = reach(args, mip, strides[0], strides[1], part);
        assert!(
            reach.saturating_add(offset) <= u32::MAX.into(),
            "{part:?}, strides {strides:?}, at {offset} of {args:?} reaches {reach}"
        );
        let iovecs = own.unwrap_or_else(|| {
            let (iovecs, count) = resource.iovecs.expect("an attached backing");
            // SAFETY: they stay valid until they are detached.
            unsafe { slice::from_raw_parts(iovecs, count) }
        });
        // The library searches all of them for each row.
        assert!(
            own.is_none() || part[4] == 1 || part[4] as usize * iovecs.len() <= MAX_STEPS,
            "{part:?} by {} iovecs",
            iovecs.len()
        );
        touch(iovecs);
        let has: u64 = iovecs.iter().map(|iovec| iovec.len() as u64).sum();
        assert!(
            own.is_none() || args.format > 134 || reach <= has,
            "a read beyond the iovecs"
        );
        if offset + reach <= has { 0 } else { EINVAL }
    })
}

pub(super) unsafe extern "C" fn transfer_read(
    id: u32,
    context: u32,
    mip: u32,
    stride: u32,
    layer_stride: u32,
    part: *mut sys::virgl_box,
    offset: u64,
    iovecs: *mut sys::iovec,
    count: c_int,
) -> c_int {
    // SAFETY: `virgl_box` consists of six numbers.
    let part = unsafe { *part.cast::<[u32; 6]>() };
    let own = (!iovecs.is_null()).then(|| {
        let count = usize::try_from(count).expect("a count of at least 0");
        // SAFETY: `count` is their number.
        unsafe { slice::from_raw_parts(iovecs.cast_const().cast::<IoVec>(), count) }
    });
    let strides = [stride, layer_stride];
    let result = transfer(id, context, mip, strides, part, offset, own);
    for iovec in own.filter(|_| result == 0).unwrap_or_default() {
        // SAFETY: the caller's iovecs may be written during the call.
        unsafe {
            iovec
                .base()
                .cast::<u8>()
                .write_bytes(part[0] as u8 ^ id as u8, iovec.len())
        }
    }
    result
}

pub(super) unsafe extern "C" fn transfer_write(
    id: u32,
    context: u32,
    mip: c_int,
    stride: u32,
    layer_stride: u32,
    part: *mut sys::virgl_box,
    offset: u64,
    iovecs: *mut sys::iovec,
    count: c_uint,
) -> c_int {
    // SAFETY: `virgl_box` consists of six numbers.
    let part = unsafe { *part.cast::<[u32; 6]>() };
    let strides = [stride, layer_stride];
    // SAFETY: `count` is their number.
    let own = (!iovecs.is_null())
        .then(|| unsafe { slice::from_raw_parts(iovecs.cast_const().cast(), count as usize) });
    transfer(id, context, mip as u32, strides, part, offset, own)
}
