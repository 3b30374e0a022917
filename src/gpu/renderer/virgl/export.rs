// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exports textures as dmabufs, by EGL (`EGL_MESA_image_dma_buf_export`).

use std::ffi::{c_int, c_uint};
use std::os::fd::{FromRawFd, OwnedFd};

use super::egl::{self, Function, Handle};
use crate::gpu::renderer::virglrenderer;

/// The EGL extensions that an export needs.
const EXPORT: [&str; 3] = [
    "EGL_KHR_image_base",
    "EGL_KHR_gl_texture_2D_image",
    "EGL_MESA_image_dma_buf_export",
];
/// `EGL_GL_TEXTURE_2D_KHR`.
const TEXTURE_2D: c_uint = 0x30b1;
/// `EGL_IMAGE_PRESERVED_KHR`, `EGL_TRUE`, `EGL_NONE`: keeps the pixels.
const PRESERVED: [c_int; 3] = [0x30d2, 1, 0x3038];
/// Most planes of a buffer (`EGL_MESA_image_dma_buf_export`).
const MAX_PLANES: usize = 4;

/// An exported texture: a buffer with one plane at offset 0.
pub(super) struct Exported {
    pub(super) fd: OwnedFd,
    pub(super) stride: u32,
    pub(super) fourcc: u32,
    pub(super) modifier: u64,
}

type Current = unsafe extern "C" fn() -> Handle;
type Create = unsafe extern "C" fn(Handle, Handle, c_uint, Handle, *const c_int) -> Handle;
type Destroy = unsafe extern "C" fn(Handle, Handle) -> c_uint;
type Query = unsafe extern "C" fn(Handle, Handle, *mut c_int, *mut c_int, *mut u64) -> c_uint;
type Export = unsafe extern "C" fn(Handle, Handle, *mut c_int, *mut c_int, *mut c_int) -> c_uint;

/// The EGL functions that export textures. virglrenderer's own do not return the modifier before
/// version 1.0, and one of them crashes if the driver lacks the extension.
pub(super) struct Exporter {
    pub(super) display: Current,
    pub(super) context: Current,
    pub(super) create: Create,
    pub(super) destroy: Destroy,
    pub(super) query: Query,
    pub(super) export: Export,
}

impl Exporter {
    /// Finds the functions for the EGL display that is current on this thread.
    ///
    /// # Errors
    /// The extension or function that the driver lacks.
    pub(super) fn new() -> Result<Self, &'static str> {
        const NO_EGL: &str = "EGL 1.4";
        let library = virglrenderer::open(egl::EGL).map_err(|_| NO_EGL)?;
        // SAFETY: the type is that of eglGetCurrentDisplay (EGL 1.5, 3.7.4).
        let display = unsafe { library.get::<Current>(b"eglGetCurrentDisplay") };
        let display = *display.map_err(|_| NO_EGL)?;
        // SAFETY: the type is that of eglGetCurrentContext (EGL 1.5, 3.7.4).
        let context = unsafe { library.get::<Current>(b"eglGetCurrentContext") };
        let context = *context.map_err(|_| NO_EGL)?;
        // SAFETY: eglGetCurrentDisplay may be called at any time.
        let extensions = egl::extensions(library, unsafe { display() }).map_err(|_| NO_EGL)?;
        for needed in EXPORT {
            if !extensions.split_ascii_whitespace().any(|e| e == needed) {
                return Err(needed);
            }
        }
        let find = |name| egl::find(library, name).ok_or(EXPORT[2]);
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
                create: std::mem::transmute::<Function, Create>(create),
                destroy: std::mem::transmute::<Function, Destroy>(destroy),
                query: std::mem::transmute::<Function, Query>(query),
                export: std::mem::transmute::<Function, Export>(export),
            })
        }
    }

    /// Exports a texture of the GL context that is current on this thread; `None` if the driver refuses,
    /// or the buffer has several planes.
    pub(super) fn export(&self, texture: c_uint) -> Option<Exported> {
        // SAFETY: both may be called at any time.
        let (display, context) = unsafe { ((self.display)(), (self.context)()) };
        let texture = texture as usize as Handle;
        // SAFETY: EGL checks display, context and texture; the attributes end with EGL_NONE and are
        // read during the call.
        let image =
            unsafe { (self.create)(display, context, TEXTURE_2D, texture, PRESERVED.as_ptr()) };
        if image.is_null() {
            return None;
        }
        let exported = self.export_image(display, image);
        // SAFETY: the image is of this display, and not used any more. The buffer outlives it.
        unsafe { (self.destroy)(display, image) };
        exported
    }

    fn export_image(&self, display: Handle, image: Handle) -> Option<Exported> {
        let (mut fourcc, mut planes) = (0, 0);
        let mut modifiers = [0; MAX_PLANES];
        // SAFETY: the image is of this display; there is room for the results, and for the modifier of
        // each possible plane.
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
        // Drivers may report success without a descriptor.
        if done == 0 || fd < 0 {
            return None;
        }
        // SAFETY: it is a new descriptor, which the caller has to close.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let [modifier, ..] = modifiers;
        // The vhost-user-gpu protocol cannot describe an offset.
        (offset == 0).then_some(Exported {
            fd,
            stride: u32::try_from(stride).ok().filter(|stride| *stride != 0)?,
            fourcc: opaque(fourcc as u32),
            modifier,
        })
    }
}

/// The `DRM_FORMAT_*` (Linux, drm_fourcc.h) of `fourcc` without its alpha channel: a scanout is opaque,
/// and guests leave any value there.
fn opaque(fourcc: u32) -> u32 {
    match &fourcc.to_le_bytes() {
        b"AR24" => u32::from_le_bytes(*b"XR24"),
        b"AB24" => u32::from_le_bytes(*b"XB24"),
        b"RA24" => u32::from_le_bytes(*b"RX24"),
        b"BA24" => u32::from_le_bytes(*b"BX24"),
        _ => fourcc,
    }
}
