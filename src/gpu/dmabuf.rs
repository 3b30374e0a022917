//! Pictures that other processes and devices can use where they lie.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `DRM_FORMAT_MOD_LINEAR` (Linux, drm_fourcc.h): pixels lie row by row.
pub const MODIFIER_LINEAR: u64 = 0;
/// `DRM_FORMAT_MOD_INVALID`: how the pixels lie is between the driver and itself.
pub const MODIFIER_INVALID: u64 = 0x00ff_ffff_ffff_ffff;

/// A picture in a buffer of one plane that begins with its first pixel (Linux,
/// Documentation/driver-api/dma-buf.rst).
#[derive(Debug)]
pub struct Dmabuf {
    /// The buffer. It is closed with the last view of it.
    pub fd: OwnedFd,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// `DRM_FORMAT_*`: what a pixel consists of.
    pub fourcc: u32,
    /// `DRM_FORMAT_MOD_*`: how the pixels lie.
    pub modifier: u64,
    /// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` of the resource: the buffer begins with the lowest row.
    pub y_0_top: bool,
}

impl Dmabuf {
    /// Whether there is no modifier that could be told.
    pub fn has_no_modifier(&self) -> bool {
        self.modifier == MODIFIER_INVALID
    }

    /// Whether it can be read without knowing the modifier.
    pub fn is_plain(&self) -> bool {
        self.modifier == MODIFIER_LINEAR
    }
}

impl AsFd for Dmabuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
