//! What is asked of EGL and GL directly, besides virglrenderer: whether they are there at all, and
//! which GL it is; and to pass a texture on.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{FromRawFd, OwnedFd};

use libloading::Library;

use super::VirglError;
use super::api;

const EGL: &str = "libEGL.so.1";
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

/// `EGLDisplay`, `EGLContext` and `EGLImageKHR`: pointers to what only EGL knows.
type Handle = *mut c_void;

/// The extensions of a display of EGL's.
fn extensions(egl: &Library, display: Handle) -> Result<String, VirglError> {
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
fn find(egl: &Library, name: &CStr) -> Option<unsafe extern "C" fn()> {
    type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Option<unsafe extern "C" fn()>;
    // SAFETY: the type is that of eglGetProcAddress (EGL 1.5, 3.12).
    let find: GetProcAddress = unsafe { *egl.get("eglGetProcAddress").ok()? };
    // SAFETY: the name ends with NUL.
    unsafe { find(name.as_ptr()) }
}

/// What passing a texture on takes of the driver.
const EXPORT: [&str; 3] = [
    "EGL_KHR_image_base",
    "EGL_KHR_gl_texture_2D_image",
    "EGL_MESA_image_dma_buf_export",
];
/// `EGL_GL_TEXTURE_2D_KHR`.
const TEXTURE_2D: c_uint = 0x30b1;
/// `EGL_IMAGE_PRESERVED_KHR`, `EGL_TRUE`, `EGL_NONE`: what was drawn stays.
const PRESERVED: [c_int; 3] = [0x30d2, 1, 0x3038];
/// Most planes of a buffer (`EGL_MESA_image_dma_buf_export`).
const MAX_PLANES: usize = 4;

/// A texture that was passed on. It has one plane, which begins with the buffer.
pub(super) struct Exported {
    pub(super) fd: OwnedFd,
    pub(super) stride: u32,
    pub(super) fourcc: u32,
    pub(super) modifier: u64,
}

type Current = unsafe extern "C" fn() -> Handle;

/// Passes textures on. virglrenderer has functions for it, too, but before 1.0 none that tells the
/// modifier, and one that crashes where the driver cannot do it.
pub(super) struct Exporter {
    display: Current,
    context: Current,
    create: unsafe extern "C" fn(Handle, Handle, c_uint, Handle, *const c_int) -> Handle,
    destroy: unsafe extern "C" fn(Handle, Handle) -> c_uint,
    query: unsafe extern "C" fn(Handle, Handle, *mut c_int, *mut c_int, *mut u64) -> c_uint,
    export: unsafe extern "C" fn(Handle, Handle, *mut c_int, *mut c_int, *mut c_int) -> c_uint,
}

impl Exporter {
    /// With the display that is current on this thread; where it cannot be done, what is missing.
    pub(super) fn new() -> Result<Self, &'static str> {
        const NO_EGL: &str = "EGL 1.4";
        let egl = api::open(EGL).map_err(|_| NO_EGL)?;
        // SAFETY: the type is that of eglGetCurrentDisplay (EGL 1.5, 3.7.4).
        let display = unsafe { egl.get::<Current>("eglGetCurrentDisplay") };
        let display = *display.map_err(|_| NO_EGL)?;
        // SAFETY: the type is that of eglGetCurrentContext (EGL 1.5, 3.7.4).
        let context = unsafe { egl.get::<Current>("eglGetCurrentContext") };
        let context = *context.map_err(|_| NO_EGL)?;
        // SAFETY: it may be called at any time.
        let extensions = extensions(egl, unsafe { display() }).map_err(|_| NO_EGL)?;
        for needed in EXPORT {
            if !extensions.split_ascii_whitespace().any(|e| e == needed) {
                return Err(needed);
            }
        }
        let find = |name| find(egl, name).ok_or(EXPORT[2]);
        let create = find(c"eglCreateImageKHR")?;
        let destroy = find(c"eglDestroyImageKHR")?;
        let query = find(c"eglExportDMABUFImageQueryMESA")?;
        let export = find(c"eglExportDMABUFImageMESA")?;
        // SAFETY: the types are those of these functions (EGL_KHR_image_base,
        // EGL_MESA_image_dma_buf_export).
        unsafe {
            Ok(Self {
                display,
                context,
                create: std::mem::transmute::<unsafe extern "C" fn(), _>(create),
                destroy: std::mem::transmute::<unsafe extern "C" fn(), _>(destroy),
                query: std::mem::transmute::<unsafe extern "C" fn(), _>(query),
                export: std::mem::transmute::<unsafe extern "C" fn(), _>(export),
            })
        }
    }

    /// Passes on a texture of the context that is current on this thread; `None` where the driver
    /// refuses, and for buffers of several planes.
    pub(super) fn export(&self, texture: c_uint) -> Option<Exported> {
        // SAFETY: both may be called at any time.
        let (display, context) = unsafe { ((self.display)(), (self.context)()) };
        let texture = texture as usize as Handle;
        // SAFETY: EGL looks at display, context and texture itself; the attributes end with
        // EGL_NONE and are read during the call.
        let image =
            unsafe { (self.create)(display, context, TEXTURE_2D, texture, PRESERVED.as_ptr()) };
        if image.is_null() {
            return None;
        }
        let exported = self.export_image(display, image);
        // SAFETY: the image is one of this display's, and is not used any more; the buffer stays.
        unsafe { (self.destroy)(display, image) };
        exported
    }

    fn export_image(&self, display: Handle, image: Handle) -> Option<Exported> {
        let (mut fourcc, mut planes) = (0, 0);
        let mut modifiers = [0; MAX_PLANES];
        // SAFETY: the image is one of this display's; the first two results have a place, and the
        // modifiers one for each plane there can be.
        let done = unsafe {
            (self.query)(
                display,
                image,
                &raw mut fourcc,
                &raw mut planes,
                modifiers.as_mut_ptr(),
            )
        };
        if done == 0 || planes != 1 {
            return None;
        }
        let (mut fds, mut strides, mut offsets) =
            ([-1; MAX_PLANES], [0; MAX_PLANES], [0; MAX_PLANES]);
        // SAFETY: as above.
        let done = unsafe {
            (self.export)(
                display,
                image,
                fds.as_mut_ptr(),
                strides.as_mut_ptr(),
                offsets.as_mut_ptr(),
            )
        };
        let ([fd, ..], [stride, ..], [offset, ..]) = (fds, strides, offsets);
        // The driver may say that it is done, and have none.
        if done == 0 || fd < 0 {
            return None;
        }
        // SAFETY: it was made for the caller, who is to close it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let [modifier, ..] = modifiers;
        // The protocol has no place for an offset.
        (offset == 0).then_some(Exported {
            fd,
            stride: u32::try_from(stride).ok().filter(|stride| *stride != 0)?,
            fourcc: opaque(fourcc.cast_unsigned()),
            modifier,
        })
    }
}

/// The `DRM_FORMAT_*` (Linux, drm_fourcc.h) that is `fourcc` but for its alpha: nothing is behind a
/// screen, and what lies there may be anything.
fn opaque(fourcc: u32) -> u32 {
    match &fourcc.to_le_bytes() {
        b"AR24" => u32::from_le_bytes(*b"XR24"),
        b"AB24" => u32::from_le_bytes(*b"XB24"),
        b"RA24" => u32::from_le_bytes(*b"RX24"),
        b"BA24" => u32::from_le_bytes(*b"BX24"),
        _ => fourcc,
    }
}
