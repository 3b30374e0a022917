//! What 3D adds to the wire format (virtio 1.2, 5.7.6.8, "Device Operation: controlq (3d)").

use std::io::{self, Read};

use virtio_bindings::virtio_gpu as spec;

use super::RequestReader;

/// Bytes of a context's name.
pub const CONTEXT_NAME_LEN: usize = 64;

/// A part of a 3D resource (`struct virtio_gpu_box`). What a driver sends may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Box3 {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// First slice or layer.
    pub z: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Slices or layers.
    pub depth: u32,
}

impl Box3 {
    /// Whether all of it lies within `width` by `height` by `depth`, and there is something in it.
    pub fn lies_within(&self, width: u32, height: u32, depth: u32) -> bool {
        let within = |start: u32, len: u32, all: u32| {
            len != 0 && start.checked_add(len).is_some_and(|end| end <= all)
        };
        within(self.x, self.width, width)
            && within(self.y, self.height, height)
            && within(self.z, self.depth, depth)
    }

    /// How many texels there are in it.
    pub fn volume(&self) -> u64 {
        let area = u64::from(self.width).saturating_mul(self.height.into());
        area.saturating_mul(self.depth.into())
    }
}

/// A 3D resource to be made (`struct virtio_gpu_resource_create_3d`): Gallium's terms and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create3d {
    /// The driver's id for it.
    pub id: u32,
    /// What kind of texture, or a buffer (`enum pipe_texture_target`).
    pub target: u32,
    /// Format of its texels (`enum virgl_formats`).
    pub format: u32,
    /// What it is for (`VIRGL_BIND_*`).
    pub bind: u32,
    /// Columns; the bytes of a buffer.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Slices.
    pub depth: u32,
    /// Layers.
    pub array_size: u32,
    /// The number of the smallest mipmap.
    pub last_level: u32,
    /// Samples of each texel; 0 and 1 are the same.
    pub samples: u32,
    /// `VIRTIO_GPU_RESOURCE_FLAG_*`.
    pub flags: u32,
}

impl Create3d {
    /// Reads the part after the header.
    ///
    /// # Errors
    /// Where the source ends first, as everything in here.
    pub fn read(fields: &mut RequestReader<impl Read>) -> io::Result<Self> {
        let [id, target, format, bind, width, height, depth] = fields.words()?;
        let [array_size, last_level, samples, flags] = fields.words()?;
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
pub struct Transfer3d {
    /// Which part of the resource.
    pub part: Box3,
    /// Where in the backing it begins, in bytes.
    pub offset: u64,
    /// The resource.
    pub id: u32,
    /// The mipmap.
    pub level: u32,
    /// Bytes from one row to the next in the backing; 0 for rows without gaps.
    pub stride: u32,
    /// Bytes from one layer to the next in the backing; 0 for layers without gaps.
    pub layer_stride: u32,
}

impl Transfer3d {
    /// Reads the part after the header.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn read(fields: &mut RequestReader<impl Read>) -> io::Result<Self> {
        let [x, y, z, width, height, depth] = fields.words()?;
        let offset = fields.u64()?;
        let [id, level, stride, layer_stride] = fields.words()?;
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

/// A set of capabilities that a driver can ask for (`struct virtio_gpu_resp_capset_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapsetInfo {
    /// `VIRTIO_GPU_CAPSET_*`.
    pub id: u32,
    /// The newest version of it.
    pub max_version: u32,
    /// Its size in bytes.
    pub max_size: u32,
}

impl CapsetInfo {
    /// The sets of virgl's capabilities.
    pub const VIRGL: [u32; 2] = [
        spec::VIRTIO_GPU_CAPSET_VIRGL,
        spec::VIRTIO_GPU_CAPSET_VIRGL2,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_lies_within_its_resource() {
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
        let create = Create3d::read(&mut RequestReader::new(&words[..44])).unwrap();
        assert_eq!((create.id, create.depth, create.flags), (1, 7, 11));
        assert!(Create3d::read(&mut RequestReader::new(&words[..43])).is_err());
        let transfer = Transfer3d::read(&mut RequestReader::new(&words[..48])).unwrap();
        assert_eq!((transfer.part.depth, transfer.offset), (6, 8 << 32 | 7));
        assert_eq!((transfer.id, transfer.layer_stride), (9, 12));
        assert!(Transfer3d::read(&mut RequestReader::new(&words[..47])).is_err());
    }
}
