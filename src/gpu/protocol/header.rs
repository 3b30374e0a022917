// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header of every request and response (virtio 1.2, 5.7.6.7).

use virtio_bindings::virtio_gpu as spec;

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 24;

/// `struct virtio_gpu_ctrl_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// A [`command`](super::command) or a [`response`](super::response) (`type`).
    pub(crate) kind: u32,
    /// `VIRTIO_GPU_FLAG_*`.
    pub(crate) flags: u32,
    /// The driver's id of the fence, with `VIRTIO_GPU_FLAG_FENCE`.
    pub(crate) fence_id: u64,
    /// The rendering context; 0 for none, as always in 2D.
    pub(crate) ctx_id: u32,
    /// Timeline of the context, with `VIRTIO_GPU_FLAG_INFO_RING_IDX`.
    pub(crate) ring_idx: u8,
}

/// A timeline of a rendering context, with `VIRTIO_GPU_FLAG_INFO_RING_IDX`. Work on one is done in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingId {
    /// The context.
    pub(crate) context: u32,
    /// The timeline.
    pub(crate) index: u8,
}

impl Header {
    /// Whether the response waits until all work of the request is done.
    pub(crate) fn is_fenced(&self) -> bool {
        self.flags & spec::VIRTIO_GPU_FLAG_FENCE != 0
    }

    /// The timeline of the context that the request's fence is on; `None` for the device's.
    pub(crate) fn ring(&self) -> Option<RingId> {
        (self.flags & spec::VIRTIO_GPU_FLAG_INFO_RING_IDX != 0).then_some(RingId {
            context: self.ctx_id,
            index: self.ring_idx,
        })
    }

    /// The header of a response of this kind to the request: a fence is returned with it.
    pub(super) fn response(&self, kind: u32) -> Self {
        if !self.is_fenced() {
            return Self {
                kind,
                ..Self::default()
            };
        }
        let flags = spec::VIRTIO_GPU_FLAG_FENCE | spec::VIRTIO_GPU_FLAG_INFO_RING_IDX;
        Self {
            kind,
            flags: self.flags & flags,
            ..*self
        }
    }

    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.fence_id.to_le_bytes());
        bytes.extend(self.ctx_id.to_le_bytes());
        bytes.extend([self.ring_idx, 0, 0, 0]);
    }
}
