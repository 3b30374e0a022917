// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of libvirglrenderer, loaded at run time with `--virgl` only.
//!
//! A linked library would load some twenty others into every process, including those that render in
//! 2D or only print their capabilities. The types come from the library's header, and the compiler
//! checks each function's type against that header.

use std::ffi::{c_char, c_int, c_uint, c_void};

use virglrenderer_sys as sys;

use super::VirglError;
use super::dynamic_library::{self, DynamicLibrary};

/// File name of the library, with the version of its ABI.
const LIBRARY: &str = "libvirglrenderer.so.1";

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library's functions.
        pub(super) struct Api {
            $($(#[$doc])* pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Redirects the log; `None` before version 1.1.
            pub(super) set_log_callback: Option<SetLogCallback>,
        }

        // The types above are those of the header.
        const _: () = {
            $(let _: unsafe extern "C" fn($($argument),*) $(-> $result)? = sys::$symbol;)*
        };

        impl Api {
            fn find(library: &DynamicLibrary) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the types are checked against the header above, and the library's
                    // name has the version of the ABI.
                    $($name: unsafe { *library.get(stringify!($symbol).as_bytes())? },)*
                    // SAFETY: the type is that of the header in the versions that declare it.
                    set_log_callback: unsafe { library.get(b"virgl_set_log_callback") }
                        .ok()
                        .map(|symbol| *symbol),
                })
            }
        }
    };
}

/// `virgl_log_callback_type`: level, message, user data.
pub(super) type LogCallback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void);
type SetLogCallback =
    unsafe extern "C" fn(LogCallback, *mut c_void, Option<unsafe extern "C" fn(*mut c_void)>);

functions! {
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
    set_debug_callback = virgl_set_debug_callback(sys::virgl_debug_callback_type)
        -> sys::virgl_debug_callback_type;
}

impl Api {
    /// Loads the library. It stays loaded, since it keeps a thread and callbacks.
    pub(super) fn load() -> Result<Self, VirglError> {
        let library = dynamic_library::open(LIBRARY)?;
        Self::find(library).map_err(|source| VirglError::Missing {
            library: LIBRARY,
            source,
        })
    }
}
