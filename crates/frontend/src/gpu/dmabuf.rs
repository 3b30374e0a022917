// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A scanout given as a dmabuf, and the picture in it.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::mm::{MapFlags, ProtFlags};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

use super::Surface;
use crate::{Error, Result};

/// `DRM_FORMAT_MOD_LINEAR`.
const LINEAR: u64 = 0;

/// A scanout given as a dmabuf.
#[derive(Debug)]
pub struct DmabufScanout {
    /// The message's fields: scanout, x, y, width, height, fd_width, fd_height, fd_stride,
    /// fd_flags, fd_drm_fourcc.
    pub fields: [u32; 10],
    /// DMABUF_SCANOUT2 only.
    pub modifier: Option<u64>,
    /// The buffer; none if the scanout is disabled.
    pub fd: Option<OwnedFd>,
}

impl DmabufScanout {
    /// What is in the buffer now: the part that the scanout shows.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a processor cannot read it as it was described; as `mmap(2)`.
    pub fn picture(&self) -> Result<Surface> {
        let broken = |why: String| Error::Protocol(format!("a dmabuf scanout: {why}"));
        let [
            _,
            x,
            y,
            width,
            height,
            fd_width,
            fd_height,
            stride,
            flags,
            fourcc,
        ] = self.fields;
        if self.modifier.is_some_and(|modifier| modifier != LINEAR) {
            return Err(broken(format!("modifier {:?}", self.modifier)));
        }
        if x + width > fd_width || y + height > fd_height || stride < fd_width * 4 {
            return Err(broken(format!("{:?}", self.fields)));
        }
        // Where red, green and blue lie in a pixel.
        let order = match &fourcc.to_le_bytes() {
            b"XR24" | b"AR24" => [2, 1, 0],
            b"XB24" | b"AB24" => [0, 1, 2],
            other => {
                return Err(broken(format!(
                    "format {:?}",
                    String::from_utf8_lossy(other)
                )));
            }
        };
        let fd = self.fd.as_ref().ok_or_else(|| broken("no buffer".into()))?;
        let file = File::from(fd.try_clone().map_err(Error::io("dup of a dmabuf"))?);
        let len = stride as usize * fd_height as usize;
        let map = MmapRegionBuilder::<()>::new(len)
            .with_file_offset(FileOffset::new(file, 0))
            .with_mmap_prot(ProtFlags::READ.bits() as i32)
            .with_mmap_flags(MapFlags::SHARED.bits() as i32)
            .build()
            .map_err(|e| broken(format!("cannot be mapped: {e}")))?;
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 4);
        let mut row = vec![0; width as usize * 4];
        for line in y..y + height {
            // VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP: from the lowest row on.
            let line = if flags & 1 == 0 {
                line
            } else {
                fd_height - 1 - line
            };
            let at = line as usize * stride as usize + x as usize * 4;
            let read = map.as_volatile_slice().read_slice(&mut row, at);
            read.map_err(|e| broken(e.to_string()))?;
            for pixel in row.chunks_exact(4) {
                let [r, g, b] = order.map(|i| u32::from(pixel[i]));
                pixels.extend((r << 16 | g << 8 | b).to_ne_bytes());
            }
        }
        Ok(Surface {
            width,
            height,
            pixels,
        })
    }
}
