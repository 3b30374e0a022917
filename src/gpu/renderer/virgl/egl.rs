//! What is asked of EGL and GL directly, besides virglrenderer: whether they are there at all, and
//! which GL it is.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libloading::Library;

use super::VirglError;
use super::api;

/// `EGLDisplay`, `EGLContext` and `EGLImageKHR`: pointers to what only EGL knows.
pub(super) type Handle = *mut c_void;
/// Any function.
pub(super) type Function = unsafe extern "C" fn();

pub(super) const EGL: &str = "libEGL.so.1";
/// Desktop GL, as libepoxy looks for it: by one of these.
const GL: [&str; 2] = ["libOpenGL.so.0", "libGL.so.1"];

/// `EGL_EXTENSIONS`.
const EXTENSIONS: c_int = 0x3055;
/// By which of EGL's platforms it is done on a render node, and without any.
const GBM: [&str; 2] = ["EGL_KHR_platform_gbm", "EGL_MESA_platform_gbm"];
const SURFACELESS: [&str; 1] = ["EGL_MESA_platform_surfaceless"];

const GL_RENDERER: c_uint = 0x1f01;

/// Checks that EGL and GL can be loaded, and that EGL has a driver that renders in the way it is to
/// be done: libepoxy and virglrenderer end the process where they cannot go on.
pub(super) fn check(on_node: bool) -> Result<(), VirglError> {
    let egl = api::open(EGL)?;
    let [first, second] = GL;
    api::open(first).or_else(|_| api::open(second))?;
    // Without a display it tells the client's extensions, or nothing.
    let extensions = extensions(egl, std::ptr::null_mut())?;
    let has = |name| extensions.split_ascii_whitespace().any(|e| e == name);
    let platforms = if on_node { &GBM[..] } else { &SURFACELESS };
    if has("EGL_EXT_platform_base") && platforms.iter().any(|name| has(name)) {
        return Ok(());
    }
    Err(VirglError::Init {
        said: format!("EGL lacks {}", platforms.join(" and ")),
    })
}

/// The GL that is current on this thread, in its own words.
pub(super) fn renderer() -> Option<String> {
    type GetString = unsafe extern "C" fn(c_uint) -> *const c_char;
    let get_string = find(api::open(EGL).ok()?, c"glGetString")?;
    // SAFETY: the type is that of glGetString.
    let get_string = unsafe { std::mem::transmute::<Function, GetString>(get_string) };
    // SAFETY: it may be called with any number, and with no context current it says nothing.
    let name = unsafe { get_string(GL_RENDERER) };
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a string of GL's own that ends with NUL and stays.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}

/// The extensions of a display of EGL's.
pub(super) fn extensions(egl: &Library, display: Handle) -> Result<String, VirglError> {
    type QueryString = unsafe extern "C" fn(Handle, c_int) -> *const c_char;
    // SAFETY: the type is that of eglQueryString (EGL 1.5, 3.3).
    let query = unsafe { egl.get::<QueryString>("eglQueryString") };
    let query = query.map_err(|error| VirglError::Missing {
        library: EGL,
        error,
    })?;
    // SAFETY: it may be asked of any display, and says nothing of one that there is not.
    let extensions = unsafe { query(display, EXTENSIONS) };
    if extensions.is_null() {
        return Ok(String::new());
    }
    // SAFETY: it is a string of EGL's own that ends with NUL and stays.
    let extensions = unsafe { CStr::from_ptr(extensions) };
    Ok(extensions.to_string_lossy().into_owned())
}

/// A function of EGL or GL that only the driver has. There may be one of any name; whether it can
/// be called, the extensions tell.
pub(super) fn find(egl: &Library, name: &CStr) -> Option<Function> {
    type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Option<Function>;
    // SAFETY: the type is that of eglGetProcAddress (EGL 1.5, 3.12).
    let find: GetProcAddress = unsafe { *egl.get("eglGetProcAddress").ok()? };
    // SAFETY: the name ends with NUL.
    unsafe { find(name.as_ptr()) }
}
