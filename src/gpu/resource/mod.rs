// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parts of a resource that both renderers use: its backing in the guest's memory, its image in the
//! host's memory or the blob that takes its place, and the budget and the table that bound both.

mod backing;
mod blob;
mod budget;
mod cursor;
mod dmabuf;
mod error;
mod host_mapping;
mod host_memory;
mod image;
mod pixel_order;
mod pixel_source;
mod table;
mod uuid;

#[cfg(feature = "virgl")]
pub(crate) use backing::GuestRange;
pub(crate) use backing::{Backing, BackingError, BackingReader, MAX_PIECE, keep_freed_lists};
pub(crate) use blob::{Blob, BlobError, BlobFramebuffer, BlobHandle};
pub(crate) use budget::{Budget, Charge};
pub(crate) use cursor::{CURSOR_LEN, CURSOR_SIDE, CursorPixels};
pub(crate) use dmabuf::Dmabuf;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use dmabuf::{MODIFIER_INVALID, MODIFIER_LINEAR};
pub(crate) use error::ResourceError;
pub(crate) use host_mapping::HostMapping;
pub(crate) use host_memory::{HostMemory, is_dmabuf};
#[cfg(feature = "virgl")]
pub(crate) use image::MAX_SIDE;
pub(crate) use image::{Image, ImageError, PIXEL_LEN, SharedImage, merge};
pub(crate) use pixel_order::{is_display_order, to_display_order};
pub(crate) use pixel_source::PixelSource;
pub(crate) use table::ResourceTable;
