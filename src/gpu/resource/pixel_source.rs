// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the pixels of a scanout are read from.

use super::{BlobFramebuffer, SharedImage};

/// Where the pixels of a scanout are read from.
#[derive(Clone, Debug)]
pub(crate) enum PixelSource {
    /// An image in the host's memory.
    Image(SharedImage),
    /// A blob in the guest's memory.
    Blob(BlobFramebuffer),
}

impl PixelSource {
    /// Whether both are of the same resource.
    pub(crate) fn is_of_same_resource(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Image(image), Self::Image(other)) => image.is(other),
            (Self::Blob(framebuffer), Self::Blob(other)) => framebuffer.blob().is(other.blob()),
            (Self::Image(_), Self::Blob(_)) | (Self::Blob(_), Self::Image(_)) => false,
        }
    }

    /// Whether both are the same pixels.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let layout = |source: &Self| match source {
            Self::Image(_) => None,
            Self::Blob(framebuffer) => Some(framebuffer.layout()),
        };
        self.is_of_same_resource(other) && layout(self) == layout(other)
    }

    /// The pixels of `rect`.
    #[cfg(test)]
    pub(crate) fn read(&self, rect: &crate::geometry::Rect) -> Vec<u8> {
        let row_len = rect.width as usize * super::PIXEL_LEN;
        let mut pixels = vec![0; row_len * rect.height as usize];
        match self {
            Self::Image(image) => {
                let image = image.lock();
                for (y, row) in (rect.y..).zip(pixels.chunks_exact_mut(row_len)) {
                    row.copy_from_slice(image.bytes(rect.x, y, row_len));
                }
            }
            Self::Blob(framebuffer) => {
                framebuffer.read(rect, 0, &mut pixels);
            }
        }
        pixels
    }
}
