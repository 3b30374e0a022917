// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests and responses of the control and cursor queues (virtio 1.2, 5.7.6.7), and the structures
//! that vhost-user-gpu.rst takes from them. Only this module reads and writes their bytes. All numbers
//! are little-endian.

use virtio_bindings::virtio_gpu as spec;

// Public for `gpu::fuzzing`.
#[allow(unreachable_pub)]
pub mod command;
mod commands_3d;
mod commands_blob;
mod display_info;
mod error;
mod format;
mod header;
mod reader;
pub(crate) mod response;
mod scanout_id;

pub(crate) use command::{
    Command, CursorCommand, NegotiatedFeatures, Request, ResourceAttachBacking, ResourceCreate2d,
    ResourceFlush, SetScanout, Transfer2d, UpdateCursor,
};
#[cfg(feature = "virgl")]
pub(crate) use commands_3d::Box3;
pub(crate) use commands_3d::{CapsetInfo, CtxCreate, ResourceCreate3d, Submit3d, Transfer3d};
pub(crate) use commands_blob::{
    BlobMemory, FramebufferLayout, ResourceCreateBlob, ResourceMapBlob, SetScanoutBlob,
};
#[cfg(feature = "fuzzing")]
pub(crate) use display_info::MODES_LEN;
pub(crate) use display_info::{DisplayInfo, DisplayMode};
pub(crate) use error::{DecodeError, ReadError};
pub(crate) use format::Format;
pub(crate) use header::{HEADER_LEN, Header, RingId};
pub(crate) use reader::{MemEntry, MemEntryBuffer, RequestBytes, RequestReader};
pub(crate) use response::{EncodedResponse, ErrorCode, MAX_EDID_LEN, Response};

/// Most scanouts of a device (`VIRTIO_GPU_MAX_SCANOUTS`).
pub(crate) const MAX_SCANOUTS: usize = spec::VIRTIO_GPU_MAX_SCANOUTS as usize;

#[cfg(test)]
mod tests;
