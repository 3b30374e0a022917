// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a scanout shows, and which dmabufs a display can be passed.

use std::sync::Arc;

use crate::geometry::{Rect, Size};
use crate::gpu::resource::{BlobHandle, Dmabuf, PixelSource, SharedImage};

/// Which dmabufs a display can be passed instead of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DmabufSupport {
    /// None: it is sent pixels.
    None,
    /// Linear dmabufs, or those without a modifier (`VHOST_USER_GPU_DMABUF_SCANOUT`).
    LinearOnly,
    /// Dmabufs with any modifier (`VHOST_USER_GPU_DMABUF_SCANOUT2`). Also the initial value: nothing is
    /// sent before the protocol features are negotiated.
    #[default]
    Modifiers,
}

impl DmabufSupport {
    fn accepts(self, dmabuf: &Dmabuf) -> bool {
        match self {
            Self::None => false,
            Self::LinearOnly => dmabuf.is_linear(),
            Self::Modifiers => true,
        }
    }
}

/// How displays show a scanout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nobody looks.
    Nowhere,
    /// One or more by its pixels.
    Pixels,
    /// All by its dmabuf.
    Dmabuf,
}

/// What a scanout shows: a part of a resource.
#[derive(Clone, Debug)]
pub(crate) struct ScanoutSource {
    /// The resource's id.
    pub(crate) resource: u32,
    /// Where its pixels are read from, for displays that are sent them.
    pub(crate) pixels: PixelSource,
    /// The part of them that the scanout shows.
    pub(crate) rect: Rect,
    /// Its dmabuf, if it can be exported and the scanout shows all of it.
    pub(crate) dmabuf: Option<Arc<Dmabuf>>,
}

impl ScanoutSource {
    /// The scanout's size.
    pub(super) fn size(&self) -> Size {
        Size::new(self.rect.width, self.rect.height)
    }

    /// The whole scanout in its own coordinates.
    pub(super) fn everything(&self) -> Rect {
        self.size().into()
    }

    /// The dmabuf that a display with this support is passed; `None` if it is sent pixels.
    pub(super) fn dmabuf_for(&self, support: DmabufSupport) -> Option<&Arc<Dmabuf>> {
        self.dmabuf
            .as_ref()
            .filter(|dmabuf| support.accepts(dmabuf))
    }

    /// Shows a part of resource 1, which has no dmabuf.
    #[cfg(test)]
    pub(crate) fn of_pixels(image: &SharedImage, rect: Rect) -> Self {
        Self {
            resource: 1,
            pixels: PixelSource::Image(image.clone()),
            rect,
            dmabuf: None,
        }
    }

    /// Its image.
    #[cfg(test)]
    pub(crate) fn image(&self) -> SharedImage {
        match &self.pixels {
            PixelSource::Image(image) => image.clone(),
            PixelSource::Blob(_) => panic!("a blob has no image"),
        }
    }
}

/// A resource that scanouts may show.
pub(crate) trait ScanoutResource {
    /// Whether `source` is a part of it.
    fn is_shown_by(&self, source: &ScanoutSource) -> bool;
}

impl ScanoutResource for SharedImage {
    fn is_shown_by(&self, source: &ScanoutSource) -> bool {
        matches!(&source.pixels, PixelSource::Image(image) if image.is(self))
    }
}

impl ScanoutResource for BlobHandle {
    fn is_shown_by(&self, source: &ScanoutSource) -> bool {
        matches!(&source.pixels, PixelSource::Blob(framebuffer) if framebuffer.blob().is(self))
    }
}
