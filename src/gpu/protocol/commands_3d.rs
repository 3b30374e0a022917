// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Structures of the 3D commands (virtio 1.2, 5.7.6.9).

use virtio_bindings::virtio_gpu as spec;

use super::{DecodeError, ReadError, RequestBytes, RequestReader};

/// Most bytes of a context's name.
const CONTEXT_NAME_LEN: usize = 64;

/// The debug name of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextName {
    bytes: [u8; CONTEXT_NAME_LEN],
    len: usize,
}

impl ContextName {
    /// The name; any bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// `struct virtio_gpu_ctx_create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CtxCreate {
    /// The driver's id for the new context.
    pub(crate) id: u32,
    /// Debug name.
    pub(crate) name: ContextName,
    /// The capability set by whose protocol the context is used; 0 for the renderer's default. The driver tells it with
    /// `VIRTIO_GPU_F_CONTEXT_INIT` only.
    pub(crate) capset: u32,
}

impl CtxCreate {
    pub(super) fn decode(
        id: u32,
        has_context_init: bool,
        reader: &mut RequestReader<impl RequestBytes>,
    ) -> Result<Self, DecodeError> {
        let [len, context_init] = reader.words()?;
        let capset = match has_context_init {
            true => context_init & spec::VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK,
            false => 0,
        };
        let bytes = reader.bytes()?;
        let name = match usize::try_from(len) {
            Ok(len) if len <= CONTEXT_NAME_LEN => ContextName { bytes, len },
            _ => return Err(DecodeError::ContextName(len)),
        };
        Ok(Self { id, name, capset })
    }
}

/// `struct virtio_gpu_cmd_submit`. The command stream follows it in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Submit3d {
    /// The context.
    pub(crate) context: u32,
    /// Length of the command stream in bytes.
    pub(crate) size: u32,
}

impl Submit3d {
    pub(super) fn decode(
        context: u32,
        reader: &mut RequestReader<impl RequestBytes>,
    ) -> Result<Self, ReadError> {
        let [size, _padding] = reader.words()?;
        Ok(Self { context, size })
    }
}

/// A part of a 3D resource (`struct virtio_gpu_box`). A driver may send any numbers: check
/// [`Box3::lies_within`] before arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Box3 {
    /// First column.
    pub(crate) x: u32,
    /// First row.
    pub(crate) y: u32,
    /// First slice or layer.
    pub(crate) z: u32,
    /// Columns.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    /// Slices or layers.
    pub(crate) depth: u32,
}

impl Box3 {
    /// Whether it is within `width` by `height` by `depth` texels, and not empty.
    #[cfg_attr(
        not(feature = "virgl"),
        allow(dead_code, reason = "only virgl uses it")
    )]
    pub(crate) fn lies_within(&self, width: u32, height: u32, depth: u32) -> bool {
        let within = |start: u32, len: u32, all: u32| {
            len != 0 && start.checked_add(len).is_some_and(|end| end <= all)
        };
        within(self.x, self.width, width)
            && within(self.y, self.height, height)
            && within(self.z, self.depth, depth)
    }

    /// Number of texels.
    #[cfg_attr(
        not(feature = "virgl"),
        allow(dead_code, reason = "only virgl uses it")
    )]
    pub(crate) fn volume(&self) -> u64 {
        let area = u64::from(self.width).saturating_mul(self.height.into());
        area.saturating_mul(self.depth.into())
    }
}

/// `struct virtio_gpu_resource_create_3d`, in the terms and numbers of Gallium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceCreate3d {
    /// The driver's id for the new resource.
    pub(crate) id: u32,
    /// Kind of texture, or a buffer (`enum pipe_texture_target`).
    pub(crate) target: u32,
    /// Format of the texels (`enum virgl_formats`).
    pub(crate) format: u32,
    /// Uses (`VIRGL_BIND_*`).
    pub(crate) bind: u32,
    /// Columns; for a buffer, bytes.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    /// Slices.
    pub(crate) depth: u32,
    /// Layers.
    pub(crate) array_size: u32,
    /// Level of the smallest mipmap.
    pub(crate) last_level: u32,
    /// Samples per texel; 0 means 1.
    pub(crate) samples: u32,
    /// `VIRTIO_GPU_RESOURCE_FLAG_*`.
    pub(crate) flags: u32,
}

impl ResourceCreate3d {
    pub(super) fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, ReadError> {
        let [id, target, format, bind, width, height, depth] = reader.words()?;
        let [array_size, last_level, samples, flags] = reader.words()?;
        Ok(Self {
            id,
            target,
            format,
            bind,
            width,
            height,
            depth,
            array_size,
            last_level,
            samples,
            flags,
        })
    }
}

/// A copy between a resource and its backing (`struct virtio_gpu_transfer_host_3d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer3d {
    /// The part of the resource.
    pub(crate) part: Box3,
    /// Where the part begins in the backing, in bytes.
    pub(crate) offset: u64,
    /// The resource.
    pub(crate) id: u32,
    /// Level of the mipmap.
    pub(crate) level: u32,
    /// Bytes from one row to the next in the backing; 0 if rows have no gaps.
    pub(crate) stride: u32,
    /// Bytes from one layer to the next in the backing; 0 if layers have no gaps.
    pub(crate) layer_stride: u32,
}

impl Transfer3d {
    pub(super) fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, ReadError> {
        let [x, y, z, width, height, depth] = reader.words()?;
        let offset = reader.u64()?;
        let [id, level, stride, layer_stride] = reader.words()?;
        Ok(Self {
            part: Box3 {
                x,
                y,
                z,
                width,
                height,
                depth,
            },
            offset,
            id,
            level,
            stride,
            layer_stride,
        })
    }
}

/// A capability set of the renderer (`struct virtio_gpu_resp_capset_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapsetInfo {
    /// `VIRTIO_GPU_CAPSET_*`.
    pub(crate) id: u32,
    /// Newest version.
    pub(crate) max_version: u32,
    /// Size in bytes.
    pub(crate) max_size: u32,
}

impl CapsetInfo {
    /// Id of Venus's capability set, whose protocol is Vulkan.
    #[cfg_attr(
        not(feature = "virgl"),
        allow(dead_code, reason = "only virglrenderer has it")
    )]
    pub(crate) const VENUS: u32 = 4;

    /// Id of the capability set of native contexts, whose protocol is that of the GPU's own driver
    /// (`VIRTIO_GPU_CAPSET_DRM`).
    #[cfg_attr(
        not(feature = "virgl"),
        allow(dead_code, reason = "only virglrenderer has it")
    )]
    pub(crate) const DRM: u32 = 6;

    /// Ids of virgl's capability sets.
    #[cfg_attr(
        not(feature = "virgl"),
        allow(dead_code, reason = "only virgl uses it")
    )]
    pub(crate) const VIRGL: [u32; 2] = [
        spec::VIRTIO_GPU_CAPSET_VIRGL,
        spec::VIRTIO_GPU_CAPSET_VIRGL2,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_lie_within_their_resource() {
        let part = |x, width| Box3 {
            x,
            width,
            height: 1,
            depth: 1,
            ..Box3::default()
        };
        assert!(part(3, 5).lies_within(8, 1, 1));
        for (x, width) in [(3, 6), (8, 0), (9, 1), (u32::MAX, 1), (1, u32::MAX)] {
            assert!(!part(x, width).lies_within(8, 1, 1), "{x} {width}");
        }
        assert!(!part(0, 8).lies_within(8, 0, 1));
        let deep = Box3 {
            z: u32::MAX,
            ..part(0, 8)
        };
        assert!(!deep.lies_within(8, 1, 4));
    }

    #[test]
    fn structures_are_read_in_order_and_whole() {
        let words: Vec<u8> = (1..=13_u32).flat_map(u32::to_le_bytes).collect();
        let create = ResourceCreate3d::decode(&mut RequestReader::new(&words[..44])).unwrap();
        assert_eq!((create.id, create.depth, create.flags), (1, 7, 11));
        assert!(ResourceCreate3d::decode(&mut RequestReader::new(&words[..43])).is_err());
        let transfer = Transfer3d::decode(&mut RequestReader::new(&words[..48])).unwrap();
        assert_eq!((transfer.part.depth, transfer.offset), (6, 8 << 32 | 7));
        assert_eq!((transfer.id, transfer.layer_stride), (9, 12));
        assert!(Transfer3d::decode(&mut RequestReader::new(&words[..47])).is_err());
    }
}
