// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bytes of the messages of this channel.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{BackendReq, VhostUserMMapFlags};

use crate::backend::device::shared_memory::{SharedMemoryRegion, SharedMemoryRequest};

pub(super) const CONFIG_CHANGE: u32 = BackendReq::CONFIG_CHANGE_MSG as u32;
pub(super) const SHMEM_MAP: u32 = BackendReq::SHMEM_MAP as u32;
pub(super) const SHMEM_UNMAP: u32 = BackendReq::SHMEM_UNMAP as u32;

/// Flags of a message: the protocol's version, a reply, an answer is wanted.
pub(super) const VERSION: u32 = 1;
pub(super) const REPLY: u32 = 1 << 2;
pub(super) const NEED_REPLY: u32 = 1 << 3;

/// An answer: header, then 64 bits, 0 for success.
pub(super) const ANSWER_LEN: usize = 20;

/// A request to the front-end.
#[derive(Debug)]
pub(super) enum Request {
    /// The configuration space changed.
    ConfigChange,
    /// A region is to change.
    SharedMemory(SharedMemoryRegion, SharedMemoryRequest),
}

impl Request {
    /// Its number.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::ConfigChange => CONFIG_CHANGE,
            Self::SharedMemory(_, SharedMemoryRequest::Map { .. }) => SHMEM_MAP,
            Self::SharedMemory(_, SharedMemoryRequest::Unmap { .. }) => SHMEM_UNMAP,
        }
    }

    /// The bytes, with these flags.
    pub(super) fn bytes(&self, flags: u32) -> Vec<u8> {
        let payload = match self {
            Self::ConfigChange => Vec::new(),
            Self::SharedMemory(region, request) => payload(*region, request),
        };
        let header = [self.number(), flags, payload.len() as u32];
        let header = header.map(u32::to_ne_bytes);
        [header.as_flattened(), &payload].concat()
    }

    /// The descriptor that goes with the bytes.
    pub(super) fn file(&self) -> Option<&Arc<OwnedFd>> {
        match self {
            Self::SharedMemory(_, SharedMemoryRequest::Map { file, .. }) => Some(file),
            Self::SharedMemory(_, SharedMemoryRequest::Unmap { .. }) | Self::ConfigChange => None,
        }
    }
}

/// The region's number in 8 bytes, where to map from and to, how much, and the flags of the map.
fn payload(region: SharedMemoryRegion, request: &SharedMemoryRequest) -> Vec<u8> {
    let (file_offset, offset, len, flags) = match *request {
        SharedMemoryRequest::Map {
            file_offset,
            offset,
            len,
            ..
        } => (file_offset, offset, len, VhostUserMMapFlags::WRITABLE),
        SharedMemoryRequest::Unmap { offset, len } => (0, offset, len, VhostUserMMapFlags::empty()),
    };
    let fields = [file_offset, offset, len, flags.bits()].map(u64::to_ne_bytes);
    let region = [region.id(), 0, 0, 0, 0, 0, 0, 0];
    [&region, fields.as_flattened()].concat()
}
