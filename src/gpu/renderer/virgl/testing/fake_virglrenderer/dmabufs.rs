// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The fake EGL: it exports textures as memfds.

use std::ffi::{c_int, c_uint};
use std::os::fd::IntoRawFd;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::gpu::renderer::virgl::egl::Handle;
use crate::gpu::renderer::virgl::export::Exporter;
use crate::gpu::resource::{MODIFIER_INVALID, MODIFIER_LINEAR};

use super::state::state;

/// Exports memfds. The resource's flags, which the driver sets, choose the result of an export.
pub(super) fn exporter() -> Exporter {
    Exporter {
        display: current,
        context: current,
        create: create_image,
        destroy: destroy_image,
        query: query_image,
        export: export_image,
    }
}

/// Prefix of the names of this thread's buffers.
fn dmabuf_name() -> String {
    format!("dmabuf of {:?}", std::thread::current().id())
}

/// Number of open descriptors of exported buffers, anywhere in the process.
///
/// # Panics
/// If /proc cannot be read.
#[cfg(feature = "fuzzing")]
pub(super) fn open_dmabufs() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    let name = format!("/memfd:{} (deleted)", dmabuf_name());
    open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.as_os_str() == name.as_str())
        .count()
}

/// Which result an export has: the flags of the image's resource, without `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP`.
fn variant(image: Handle) -> u32 {
    let id = image as usize as u32;
    state(|state| {
        assert!(state.images.contains(&id), "no image {id}");
        state.resources[&id].args.flags >> 1
    })
}

unsafe extern "C" fn current() -> Handle {
    std::ptr::null_mut()
}

unsafe extern "C" fn create_image(
    _: Handle,
    _: Handle,
    _: c_uint,
    texture: Handle,
    _: *const c_int,
) -> Handle {
    let id = texture as usize as u32;
    state(|state| assert!(state.images.insert(id), "an image of {id} is left"));
    if variant(texture) & 7 == 3 {
        state(|state| state.images.remove(&id));
        return std::ptr::null_mut();
    }
    texture
}

unsafe extern "C" fn destroy_image(_: Handle, image: Handle) -> c_uint {
    let id = image as usize as u32;
    assert!(state(|state| state.images.remove(&id)), "no image {id}");
    1
}

unsafe extern "C" fn query_image(
    _: Handle,
    image: Handle,
    fourcc: *mut c_int,
    planes: *mut c_int,
    modifiers: *mut u64,
) -> c_uint {
    const TILED: u64 = 0x0100_0000_0000_0002;
    let variant = variant(image);
    let kinds = [*b"XR24", *b"AR24", *b"AB24", [0xff; 4]];
    // SAFETY: there is room for all results.
    unsafe {
        *fourcc = i32::from_le_bytes(kinds[(variant >> 3 & 3) as usize]);
        *planes = if variant & 7 == 5 { 2 } else { 1 };
        *modifiers = match variant & 7 {
            1 => TILED,
            2 => MODIFIER_INVALID,
            _ => MODIFIER_LINEAR,
        };
    }
    c_uint::from(variant & 7 != 4)
}

unsafe extern "C" fn export_image(
    _: Handle,
    image: Handle,
    fd: *mut c_int,
    stride: *mut c_int,
    offset: *mut c_int,
) -> c_uint {
    let variant = variant(image);
    let id = image as usize as u32;
    let width = state(|state| state.resources[&id].args.width);
    if variant & 7 != 6 {
        let memfd = memfd_create(dmabuf_name(), MemfdFlags::CLOEXEC);
        let memfd = memfd.expect("the host has descriptors left");
        // SAFETY: there is room for the result, which the caller has to close.
        unsafe { *fd = memfd.into_raw_fd() }
    }
    // SAFETY: there is room for both results.
    unsafe {
        *stride = match variant >> 5 & 3 {
            1 => 0,
            2 => -1,
            3 => c_int::MAX,
            _ => width as c_int * 4,
        };
        *offset = if variant & 7 == 7 { 64 } else { 0 };
    }
    1
}
