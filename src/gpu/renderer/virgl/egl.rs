// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Direct calls to EGL and GL, without virglrenderer: checks before it starts, and the name of the GL.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::VirglError;
use crate::gpu::renderer::virglrenderer::{self, DynamicLibrary};

/// `EGLDisplay`, `EGLContext` or `EGLImageKHR`, opaque pointers.
pub(super) type Handle = *mut c_void;
/// A function of any type.
pub(super) type Function = unsafe extern "C" fn();

pub(super) const EGL: &str = "libEGL.so.1";
/// Desktop GL, by the names that libepoxy tries.
const GL: [&str; 2] = ["libOpenGL.so.0", "libGL.so.1"];

/// `EGL_EXTENSIONS`.
const EXTENSIONS: c_int = 0x3055;
/// The EGL platforms for a render node: one of these, and the one for software rendering.
const GBM: [&str; 2] = ["EGL_KHR_platform_gbm", "EGL_MESA_platform_gbm"];
const SURFACELESS: [&str; 1] = ["EGL_MESA_platform_surfaceless"];

const GL_RENDERER: c_uint = 0x1f01;

/// Checks that EGL and GL can be loaded, and that EGL has the platform for a render node (`on_node`) or
/// for software rendering. Without them, libepoxy and virglrenderer would end the process.
pub(super) fn check(on_node: bool) -> Result<(), VirglError> {
    let egl = virglrenderer::open(EGL)?;
    let [first, second] = GL;
    virglrenderer::open(first).or_else(|_| virglrenderer::open(second))?;
    // Without a display, these are the client extensions, or none.
    let extensions = extensions(egl, std::ptr::null_mut())?;
    let has = |name| extensions.split_ascii_whitespace().any(|e| e == name);
    let platforms = if on_node { &GBM[..] } else { &SURFACELESS };
    if has("EGL_EXT_platform_base") && platforms.iter().any(|name| has(name)) {
        return Ok(());
    }
    Err(VirglError::Init {
        last_message: format!("EGL lacks {}", platforms.join(" and ")),
    })
}

/// `GL_RENDERER` of the GL context that is current on this thread.
pub(super) fn gl_renderer_name() -> Option<String> {
    type GetString = unsafe extern "C" fn(c_uint) -> *const c_char;
    let get_string = find(virglrenderer::open(EGL).ok()?, c"glGetString")?;
    // SAFETY: the type is that of glGetString.
    let get_string = unsafe { std::mem::transmute::<Function, GetString>(get_string) };
    // SAFETY: any number is valid; without a current context it returns null.
    let name = unsafe { get_string(GL_RENDERER) };
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a static NUL-terminated string of GL.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}

/// The extensions of an EGL display.
pub(super) fn extensions(egl: &DynamicLibrary, display: Handle) -> Result<String, VirglError> {
    type QueryString = unsafe extern "C" fn(Handle, c_int) -> *const c_char;
    // SAFETY: the type is that of eglQueryString (EGL 1.5, 3.3).
    let query = unsafe { egl.get::<QueryString>(b"eglQueryString") };
    let query = query.map_err(|source| VirglError::Missing {
        library: EGL,
        source,
    })?;
    // SAFETY: EGL checks the display, and returns null for an invalid one.
    let extensions = unsafe { query(display, EXTENSIONS) };
    if extensions.is_null() {
        return Ok(String::new());
    }
    // SAFETY: it is a static NUL-terminated string of EGL.
    let extensions = unsafe { CStr::from_ptr(extensions) };
    Ok(extensions.to_string_lossy().into_owned())
}

/// An extension function of EGL or GL. EGL may return one for any name: check the extension before the
/// call.
pub(super) fn find(egl: &DynamicLibrary, name: &CStr) -> Option<Function> {
    type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Option<Function>;
    // SAFETY: the type is that of eglGetProcAddress (EGL 1.5, 3.12).
    let find: GetProcAddress = unsafe { *egl.get(b"eglGetProcAddress").ok()? };
    // SAFETY: the name is NUL-terminated.
    unsafe { find(name.as_ptr()) }
}
