// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Structures of the commands on blob resources (virtio 1.2, 5.7.6.8).

use virtio_bindings::virtio_gpu as spec;

use super::scanout_id::scanout_id;
use super::{DecodeError, Format, RequestBytes, RequestReader};
use crate::geometry::{Rect, Size};

/// Every `VIRTIO_GPU_BLOB_FLAG_USE_*`.
const ALL_FLAGS: u32 = spec::VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE
    | spec::VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE
    | spec::VIRTIO_GPU_BLOB_FLAG_USE_CROSS_DEVICE;

/// Whose memory a blob resource is (`blob_mem`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobMemory {
    /// The guest's (`VIRTIO_GPU_BLOB_MEM_GUEST`).
    Guest,
    /// The host's (`VIRTIO_GPU_BLOB_MEM_HOST3D`).
    Host3d,
    /// The host's, with a shadow in the guest's (`VIRTIO_GPU_BLOB_MEM_HOST3D_GUEST`).
    Host3dGuest,
}

/// `struct virtio_gpu_resource_create_blob`. The entries of the backing follow it in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceCreateBlob {
    /// The driver's id for the new resource.
    pub(crate) id: u32,
    /// Whose memory it is.
    pub(crate) memory: BlobMemory,
    /// Number of entries of its backing; 0 if that is attached later.
    pub(crate) count: u32,
    /// Length in bytes.
    pub(crate) len: u64,
    /// `VIRTIO_GPU_BLOB_FLAG_USE_*`.
    pub(crate) flags: u32,
    /// The rendering context in which `blob_id` names host memory.
    pub(crate) context: u32,
    /// The context's name for the memory; it means nothing for the guest's.
    pub(crate) blob_id: u64,
}

impl ResourceCreateBlob {
    pub(super) fn decode(
        context: u32,
        reader: &mut RequestReader<impl RequestBytes>,
    ) -> Result<Self, DecodeError> {
        let [id, memory, flags, count] = reader.words()?;
        let blob_id = reader.u64()?;
        let len = reader.u64()?;
        if flags & !ALL_FLAGS != 0 {
            return Err(DecodeError::BlobFlags(flags));
        }
        let memory = match memory {
            spec::VIRTIO_GPU_BLOB_MEM_GUEST => BlobMemory::Guest,
            spec::VIRTIO_GPU_BLOB_MEM_HOST3D => BlobMemory::Host3d,
            spec::VIRTIO_GPU_BLOB_MEM_HOST3D_GUEST => BlobMemory::Host3dGuest,
            other => return Err(DecodeError::BlobMemory(other)),
        };
        Ok(Self {
            id,
            memory,
            count,
            len,
            flags,
            context,
            blob_id,
        })
    }
}

/// `struct virtio_gpu_resource_map_blob`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceMapBlob {
    /// The resource.
    pub(crate) resource: u32,
    /// Where it is to lie in the shared memory region, in bytes.
    pub(crate) offset: u64,
}

impl ResourceMapBlob {
    pub(super) fn decode(
        reader: &mut RequestReader<impl RequestBytes>,
    ) -> Result<Self, DecodeError> {
        let [resource, _padding] = reader.words()?;
        let offset = reader.u64()?;
        Ok(Self { resource, offset })
    }
}

/// How pixels lie in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramebufferLayout {
    /// Format of the pixels.
    pub(crate) format: Format,
    /// Size in pixels.
    pub(crate) size: Size,
    /// Bytes from one row to the next.
    pub(crate) stride: u32,
    /// Where the first row begins, in bytes.
    pub(crate) offset: u32,
}

/// `struct virtio_gpu_set_scanout_blob` with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetScanoutBlob {
    /// The part of the framebuffer that is shown.
    pub(crate) rect: Rect,
    /// The scanout: less than [`MAX_SCANOUTS`](super::MAX_SCANOUTS).
    pub(crate) scanout: u32,
    /// The resource.
    pub(crate) resource: u32,
    /// The framebuffer in it.
    pub(crate) layout: FramebufferLayout,
}

/// The fields of `struct virtio_gpu_set_scanout_blob`, of which all but the first two mean nothing without a resource.
pub(super) struct SetScanoutBlobFields {
    pub(super) rect: Rect,
    pub(super) scanout: u32,
    pub(super) resource: u32,
    format: u32,
    size: Size,
    stride: u32,
    offset: u32,
}

impl SetScanoutBlobFields {
    pub(super) fn decode(
        reader: &mut RequestReader<impl RequestBytes>,
    ) -> Result<Self, DecodeError> {
        let rect = reader.rect()?;
        let [scanout, resource, width, height, format, _padding] = reader.words()?;
        // Every format has one plane.
        let [stride, ..]: [u32; 4] = reader.words()?;
        let [offset, ..]: [u32; 4] = reader.words()?;
        Ok(Self {
            rect,
            scanout: scanout_id(scanout)?,
            resource,
            format,
            size: Size::new(width, height),
            stride,
            offset,
        })
    }

    pub(super) fn set_scanout(self) -> Result<SetScanoutBlob, DecodeError> {
        let format = Format::from_number(self.format).ok_or(DecodeError::Format(self.format))?;
        Ok(SetScanoutBlob {
            rect: self.rect,
            scanout: self.scanout,
            resource: self.resource,
            layout: FramebufferLayout {
                format,
                size: self.size,
                stride: self.stride,
                offset: self.offset,
            },
        })
    }
}
