// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of libvirglrenderer that OpenGL needs.

use std::ffi::{c_char, c_int, c_uint, c_void};

use virglrenderer_sys as sys;

use crate::gpu::renderer::virglrenderer::functions;

functions! {
    /// The functions of the library that OpenGL needs.
    Api;
    init = virgl_renderer_init(*mut c_void, c_int, *mut sys::virgl_renderer_callbacks) -> c_int;
    cleanup = virgl_renderer_cleanup(*mut c_void);
    poll = virgl_renderer_poll();
    get_poll_fd = virgl_renderer_get_poll_fd() -> c_int;
    force_ctx_0 = virgl_renderer_force_ctx_0();
    get_cap_set = virgl_renderer_get_cap_set(u32, *mut u32, *mut u32);
    fill_caps = virgl_renderer_fill_caps(u32, u32, *mut c_void);
    context_create = virgl_renderer_context_create(u32, u32, *const c_char) -> c_int;
    context_destroy = virgl_renderer_context_destroy(u32);
    context_attach = virgl_renderer_ctx_attach_resource(c_int, c_int);
    context_detach = virgl_renderer_ctx_detach_resource(c_int, c_int);
    resource_create = virgl_renderer_resource_create(
        *mut sys::virgl_renderer_resource_create_args, *mut sys::iovec, u32) -> c_int;
    resource_unref = virgl_renderer_resource_unref(u32);
    resource_attach = virgl_renderer_resource_attach_iov(c_int, *mut sys::iovec, c_int) -> c_int;
    resource_detach = virgl_renderer_resource_detach_iov(c_int, *mut *mut sys::iovec, *mut c_int);
    transfer_read = virgl_renderer_transfer_read_iov(
        u32, u32, u32, u32, u32, *mut sys::virgl_box, u64, *mut sys::iovec, c_int) -> c_int;
    transfer_write = virgl_renderer_transfer_write_iov(
        u32, u32, c_int, u32, u32, *mut sys::virgl_box, u64, *mut sys::iovec, c_uint) -> c_int;
    resource_info = virgl_renderer_resource_get_info(
        c_int, *mut sys::virgl_renderer_resource_info) -> c_int;
    submit = virgl_renderer_submit_cmd(*mut c_void, c_int, c_int) -> c_int;
    create_fence = virgl_renderer_create_fence(c_int, u32) -> c_int;
}
