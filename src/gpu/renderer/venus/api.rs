// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of libvirglrenderer that Venus needs.

use std::ffi::{c_char, c_int, c_void};

use virglrenderer_sys as sys;

use crate::gpu::renderer::virglrenderer::functions;

functions! {
    /// The functions of the library that Venus needs.
    #[derive(Clone, Copy, Debug)]
    Api;
    init = virgl_renderer_init(*mut c_void, c_int, *mut sys::virgl_renderer_callbacks) -> c_int;
    cleanup = virgl_renderer_cleanup(*mut c_void);
    get_cap_set = virgl_renderer_get_cap_set(u32, *mut u32, *mut u32);
    fill_caps = virgl_renderer_fill_caps(u32, u32, *mut c_void);
    context_create = virgl_renderer_context_create_with_flags(u32, u32, u32, *const c_char)
        -> c_int;
    context_destroy = virgl_renderer_context_destroy(u32);
    context_attach = virgl_renderer_ctx_attach_resource(c_int, c_int);
    context_detach = virgl_renderer_ctx_detach_resource(c_int, c_int);
    context_fence = virgl_renderer_context_create_fence(u32, u32, u32, u64) -> c_int;
    submit = virgl_renderer_submit_cmd(*mut c_void, c_int, c_int) -> c_int;
    create_blob = virgl_renderer_resource_create_blob(
        *const sys::virgl_renderer_resource_create_blob_args) -> c_int;
    export_blob = virgl_renderer_resource_export_blob(u32, *mut u32, *mut c_int) -> c_int;
    map_info = virgl_renderer_resource_get_map_info(u32, *mut u32) -> c_int;
    resource_unref = virgl_renderer_resource_unref(u32);
}
