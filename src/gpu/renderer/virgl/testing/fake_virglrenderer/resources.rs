// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resources of the fake library, and the iovecs that are attached to them.

use std::ffi::c_int;
use std::slice;

use virglrenderer_sys as sys;

use crate::gpu::renderer::virgl::guest_iovecs::IoVec;

use super::REFUSED_BIND;
use super::state::{EINVAL, Resource, state};

/// The bounds that the renderer ensures.
const MAX_SIDE: u32 = 16384;
const MAX_BUFFER: u32 = 1 << 30;
const MAX_LAYERS: u32 = 2048;

pub(super) unsafe extern "C" fn resource_create(
    args: *mut sys::virgl_renderer_resource_create_args,
    iovecs: *mut sys::iovec,
    count: u32,
) -> c_int {
    assert!(iovecs.is_null() && count == 0);
    // SAFETY: the arguments are valid during the call.
    let args = unsafe { *args };
    assert_ne!(args.handle, 0);
    let (side, layers) = if args.target == 0 {
        (MAX_BUFFER, 1)
    } else {
        (MAX_SIDE, MAX_LAYERS)
    };
    assert!((1..=side).contains(&args.width), "{args:?}");
    assert!((1..=MAX_SIDE).contains(&args.height), "{args:?}");
    assert!((1..=layers).contains(&args.depth), "{args:?}");
    assert!((1..=layers).contains(&args.array_size), "{args:?}");
    assert!(args.nr_samples <= 32 && args.last_level <= 14, "{args:?}");
    if args.bind & REFUSED_BIND != 0 {
        return EINVAL;
    }
    let resource = Resource { args, iovecs: None };
    let before = state(|state| state.resources.insert(args.handle, resource));
    assert!(before.is_none(), "resource {} twice", args.handle);
    0
}

pub(super) unsafe extern "C" fn resource_unref(id: u32) {
    let resource = state(|state| state.resources.remove(&id));
    let resource = resource.expect("a known resource");
    assert!(
        resource.iovecs.is_none(),
        "a destroyed resource has a backing"
    );
}

/// The GL name of a resource's texture is the resource's id.
pub(super) unsafe extern "C" fn resource_info(
    id: c_int,
    into: *mut sys::virgl_renderer_resource_info,
) -> c_int {
    let id = id as u32;
    assert!(state(|state| state.resources.contains_key(&id)));
    // SAFETY: the caller has room for the result.
    unsafe { (*into).tex_id = id }
    0
}

pub(super) unsafe extern "C" fn resource_attach(
    id: c_int,
    iovecs: *mut sys::iovec,
    count: c_int,
) -> c_int {
    let count = usize::try_from(count).expect("a count of at least 0");
    let iovecs: *const IoVec = iovecs.cast_const().cast();
    // SAFETY: `count` is their number.
    touch(unsafe { slice::from_raw_parts(iovecs, count) });
    state(|state| {
        let resource = state.resources.get_mut(&(id as u32));
        let place = &mut resource.expect("a known resource").iovecs;
        assert!(place.is_none(), "a second backing");
        *place = Some((iovecs, count));
    });
    0
}

pub(super) unsafe extern "C" fn resource_detach(id: c_int, _: *mut *mut sys::iovec, _: *mut c_int) {
    let iovecs = state(|state| {
        let resource = state.resources.get_mut(&(id as u32));
        resource.expect("a known resource").iovecs.take()
    });
    let (iovecs, count) = iovecs.expect("an attached backing");
    // SAFETY: they stay valid until they are detached.
    touch(unsafe { slice::from_raw_parts(iovecs, count) });
}

/// Reads the first and the last byte of each iovec, and writes them back.
pub(super) fn touch(iovecs: &[IoVec]) {
    for iovec in iovecs.iter().filter(|iovec| iovec.len() != 0) {
        let base: *mut u8 = iovec.base().cast();
        for at in [0, iovec.len() - 1] {
            // SAFETY: an iovec is valid memory, shared with a guest, while the library has it.
            unsafe {
                let byte = base.add(at).read_volatile();
                base.add(at).write_volatile(byte);
            }
        }
    }
}
