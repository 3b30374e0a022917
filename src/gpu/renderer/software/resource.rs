// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A resource of the renderer without a GPU.

use crate::geometry::Size;
use crate::gpu::protocol::Format;
use crate::gpu::resource::{Backing, Blob, Image, SharedImage};

/// A resource.
pub(super) struct Resource {
    pub(super) kind: ResourceKind,
    /// Runs of the backing that are kept for a successor.
    pub(super) kept_runs: usize,
}

pub(super) enum ResourceKind {
    TwoD(TwoD),
    Blob(Blob),
}

/// A 2D resource, with an image in the host's memory.
pub(super) struct TwoD {
    pub(super) format: Format,
    pub(super) size: Size,
    pub(super) image: SharedImage,
    pub(super) backing: Option<Backing>,
}

impl Resource {
    pub(super) fn two_d(format: Format, size: Size, image: Image) -> Self {
        Self {
            kind: ResourceKind::TwoD(TwoD {
                format,
                size,
                image: SharedImage::new(image),
                backing: None,
            }),
            kept_runs: 0,
        }
    }

    pub(super) fn blob(blob: Blob) -> Self {
        Self {
            kind: ResourceKind::Blob(blob),
            kept_runs: 0,
        }
    }

    pub(super) fn has_backing(&self) -> bool {
        match &self.kind {
            ResourceKind::TwoD(resource) => resource.backing.is_some(),
            ResourceKind::Blob(blob) => blob.has_backing(),
        }
    }

    pub(super) fn set_backing(&mut self, backing: Option<Backing>) {
        match &mut self.kind {
            ResourceKind::TwoD(resource) => resource.backing = backing,
            ResourceKind::Blob(blob) => blob.set_backing(backing),
        }
    }

    /// Calls `look` with the backing, if there is one.
    pub(super) fn with_backing<T>(&self, look: impl FnOnce(&Backing) -> T) -> Option<T> {
        match &self.kind {
            ResourceKind::TwoD(resource) => resource.backing.as_ref().map(look),
            ResourceKind::Blob(blob) => blob.with_backing(look),
        }
    }
}
