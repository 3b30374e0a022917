// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dmabufs: pixel buffers that other processes and devices can use in place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::geometry::Size;

/// `DRM_FORMAT_MOD_LINEAR` (Linux, drm_fourcc.h): the pixels are stored row by row.
pub(crate) const MODIFIER_LINEAR: u64 = 0;
/// `DRM_FORMAT_MOD_INVALID`: the layout is implicit, known to the driver only.
pub(crate) const MODIFIER_INVALID: u64 = 0x00ff_ffff_ffff_ffff;

/// A dmabuf (Linux, Documentation/driver-api/dma-buf.rst) with one plane, whose first pixel is at
/// offset 0.
#[derive(Debug)]
pub(crate) struct Dmabuf {
    /// The buffer.
    pub(crate) fd: OwnedFd,
    /// Columns and rows.
    pub(crate) size: Size,
    /// Bytes from one row to the next.
    pub(crate) stride: u32,
    /// `DRM_FORMAT_*`, the pixel format.
    pub(crate) fourcc: u32,
    /// `DRM_FORMAT_MOD_*`, the layout of the pixels.
    pub(crate) modifier: u64,
    /// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` of the resource: the buffer begins with the lowest row.
    pub(crate) y_0_top: bool,
}

impl Dmabuf {
    /// Whether no modifier describes the layout.
    pub(crate) fn has_no_modifier(&self) -> bool {
        self.modifier == MODIFIER_INVALID
    }

    /// Whether it can be read without knowledge of the modifier.
    pub(crate) fn is_linear(&self) -> bool {
        self.modifier == MODIFIER_LINEAR
    }
}

impl AsFd for Dmabuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
