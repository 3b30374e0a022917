//! What is asked of EGL and GL directly, besides virglrenderer: whether they are there at all, and
//! which GL it is.

use std::ffi::{CStr, c_char, c_uint};

use super::VirglError;
use super::api;

const EGL: &str = "libEGL.so.1";
/// Desktop GL, as libepoxy looks for it: by one of these.
const GL: [&str; 2] = ["libOpenGL.so.0", "libGL.so.1"];

const GL_RENDERER: c_uint = 0x1f01;

/// Checks that EGL and GL can be loaded: libepoxy, through which virglrenderer calls them, ends the
/// process where they cannot.
pub(super) fn check() -> Result<(), VirglError> {
    api::open(EGL)?;
    let [first, second] = GL;
    api::open(first).or_else(|_| api::open(second)).map(drop)
}

/// The GL that is current on this thread, in its own words.
pub(super) fn renderer() -> Option<String> {
    type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Option<unsafe extern "C" fn()>;
    type GetString = unsafe extern "C" fn(c_uint) -> *const c_char;
    let egl = api::open(EGL).ok()?;
    // SAFETY: the type is that of eglGetProcAddress (EGL 1.5, 3.12).
    let find: GetProcAddress = unsafe { *egl.get("eglGetProcAddress").ok()? };
    // SAFETY: the name ends with NUL.
    let get_string = unsafe { find(c"glGetString".as_ptr()) }?;
    // SAFETY: the type is that of glGetString.
    let get_string =
        unsafe { std::mem::transmute::<unsafe extern "C" fn(), GetString>(get_string) };
    // SAFETY: it may be called with any number, and with no context current it says nothing.
    let name = unsafe { get_string(GL_RENDERER) };
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a string of GL's own that ends with NUL and stays.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}
