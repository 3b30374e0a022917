// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of the host that a blob resource lies in, and that the guest maps (virtio 1.2, 5.7.6.8,
//! `VIRTIO_GPU_BLOB_MEM_HOST3D`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstatfs;

/// `DMA_BUF_MAGIC` (Linux, linux/magic.h).
const DMA_BUF_MAGIC: u64 = 0x444d_4142;

/// Memory of the host that a blob resource lies in, as it is mapped into the guest.
///
/// Its bytes are charged to the budget with the resource: that the guest maps them takes no more memory.
#[derive(Clone, Debug)]
pub(crate) struct HostMemory {
    /// What is mapped: a memfd or a dmabuf.
    pub(crate) file: Arc<OwnedFd>,
    /// Where the blob begins in it, in bytes.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// `VIRTIO_GPU_MAP_CACHE_*`: how the guest is to map it.
    pub(crate) caching: u32,
}

impl HostMemory {
    /// `VIRTIO_GPU_MAP_CACHE_CACHED`.
    #[cfg(feature = "virgl")]
    pub(crate) const CACHED: u32 = virtio_bindings::virtio_gpu::VIRTIO_GPU_MAP_CACHE_CACHED;
}

/// Whether a file is a dmabuf, whose size never changes. What says so of it may lie: a memfd would be as well received.
pub(crate) fn is_dmabuf(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(DMA_BUF_MAGIC))
}
