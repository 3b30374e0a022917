//! The configuration space (virtio 1.2, 5.7.4).

use std::io;

/// `struct virtio_gpu_config`: events_read, events_clear, num_scanouts, num_capsets.
const CONFIG_LEN: usize = 16;
/// Most bytes of configuration that a front-end asks for (`VHOST_USER_CONFIG_SIZE`).
const MAX_CONFIG_LEN: usize = 256;

/// `struct virtio_gpu_config`.
pub(super) struct ConfigSpace {
    num_scanouts: u32,
    /// How many capability sets there are: none without 3D.
    num_capsets: u32,
}

impl ConfigSpace {
    pub(super) fn new(num_scanouts: u32, num_capsets: u32) -> Self {
        Self {
            num_scanouts,
            num_capsets,
        }
    }

    pub(super) fn num_scanouts(&self) -> u32 {
        self.num_scanouts
    }

    pub(super) fn num_capsets(&self) -> u32 {
        self.num_capsets
    }

    /// `size` bytes from `offset` on; none if they are not all within [`MAX_CONFIG_LEN`].
    pub(super) fn read(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = [0; MAX_CONFIG_LEN];
        // QEMU overwrites the number of scanouts and the events with its own.
        config[8..12].copy_from_slice(&self.num_scanouts.to_le_bytes());
        config[12..16].copy_from_slice(&self.num_capsets.to_le_bytes());
        let start = offset as usize;
        let end = start.saturating_add(size as usize);
        // The fields that newer versions of the structure have after these are 0.
        config
            .get(start..end)
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    /// Ignores a write: only events_clear can be written, and the front-end has the events.
    ///
    /// # Errors
    /// If it ends beyond [`MAX_CONFIG_LEN`].
    pub(super) fn write(&self, offset: u32, len: usize) -> io::Result<()> {
        let end = (offset as usize).saturating_add(len);
        if end > MAX_CONFIG_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a write up to byte {end} of a configuration of {CONFIG_LEN} bytes"),
            ));
        }
        Ok(())
    }
}
