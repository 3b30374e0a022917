// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A context of OpenGL on the first render node, without a surface (EGL 1.5).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};

use anyhow::{Context as _, ensure};

use crate::gl::Gl;

/// `EGLDisplay`, `EGLConfig`, `EGLContext` or `EGLSurface`.
type Handle = *mut c_void;

const PLATFORM_SURFACELESS_MESA: c_uint = 0x31dd;
const OPENGL_API: c_uint = 0x30a2;
const CONTEXT_MAJOR_VERSION: c_int = 0x3098;
const CONTEXT_MINOR_VERSION: c_int = 0x30fb;
const CONTEXT_OPENGL_PROFILE_MASK: c_int = 0x30fd;
const CONTEXT_OPENGL_CORE_PROFILE_BIT: c_int = 1;
const NONE: c_int = 0x3038;

/// The current context of this thread.
pub(crate) struct Context {
    gl: Gl,
    // Loaded as long as what came from it is used.
    _egl: libloading::Library,
}

impl Context {
    /// Of the newest version that the driver has, from 3.3 on.
    pub(crate) fn create() -> anyhow::Result<Self> {
        // SAFETY: the library is the system's, whose initializers have no needs of their own.
        let egl = unsafe { libloading::Library::new("libEGL.so.1") }?;
        // SAFETY: these are the types of EGL 1.5; the library is open as long as they are used.
        let (get_display, initialize, bind_api, create_context, make_current, get_proc_address) = unsafe {
            type GetPlatformDisplay =
                unsafe extern "C" fn(c_uint, *mut c_void, *const isize) -> Handle;
            type Initialize = unsafe extern "C" fn(Handle, *mut c_int, *mut c_int) -> c_uint;
            type BindApi = unsafe extern "C" fn(c_uint) -> c_uint;
            type CreateContext =
                unsafe extern "C" fn(Handle, Handle, Handle, *const c_int) -> Handle;
            type MakeCurrent = unsafe extern "C" fn(Handle, Handle, Handle, Handle) -> c_uint;
            type GetProcAddress = unsafe extern "C" fn(*const c_char) -> *mut c_void;
            (
                *egl.get::<GetPlatformDisplay>(b"eglGetPlatformDisplay")?,
                *egl.get::<Initialize>(b"eglInitialize")?,
                *egl.get::<BindApi>(b"eglBindAPI")?,
                *egl.get::<CreateContext>(b"eglCreateContext")?,
                *egl.get::<MakeCurrent>(b"eglMakeCurrent")?,
                *egl.get::<GetProcAddress>(b"eglGetProcAddress")?,
            )
        };
        // SAFETY: the platform needs no native display; EGL checks its arguments, and no version is asked for.
        let (display, initialized) = unsafe {
            let display = get_display(PLATFORM_SURFACELESS_MESA, ptr::null_mut(), ptr::null());
            let initialized = initialize(display, ptr::null_mut(), ptr::null_mut());
            (display, initialized != 0)
        };
        ensure!(initialized, "EGL has no display without a surface");
        let attributes = [
            CONTEXT_MAJOR_VERSION,
            3,
            CONTEXT_MINOR_VERSION,
            3,
            CONTEXT_OPENGL_PROFILE_MASK,
            CONTEXT_OPENGL_CORE_PROFILE_BIT,
            NONE,
        ];
        let none = ptr::null_mut();
        // SAFETY: the display is initialised, the attributes end with NONE, and a context without a configuration and without
        // surfaces is what EGL_KHR_no_config_context and EGL_KHR_surfaceless_context allow; EGL fails without them.
        let is_current = unsafe {
            bind_api(OPENGL_API) != 0 && {
                let context = create_context(display, none, none, attributes.as_ptr());
                !context.is_null() && make_current(display, none, none, context) != 0
            }
        };
        ensure!(is_current, "there is no context of OpenGL 3.3");
        let find = |name: &CStr| {
            // SAFETY: the name ends with NUL.
            let function = unsafe { get_proc_address(name.as_ptr()) };
            NonNull::new(function)
                .with_context(|| format!("there is no {}", name.to_string_lossy()))
        };
        Ok(Self {
            gl: Gl::load(find)?,
            _egl: egl,
        })
    }

    pub(crate) fn gl(&self) -> &Gl {
        &self.gl
    }
}
