// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration space (virtio 1.2, 5.7.4).

use std::io;

use virtio_bindings::virtio_gpu::VIRTIO_GPU_EVENT_DISPLAY;

/// `struct virtio_gpu_config`: events_read, events_clear, num_scanouts, num_capsets.
const CONFIG_LEN: usize = 16;
/// The offset of events_clear.
const EVENTS_CLEAR: usize = 4;
/// Most bytes of configuration that a front-end asks for (`VHOST_USER_CONFIG_SIZE`).
const MAX_CONFIG_LEN: usize = 256;

/// `struct virtio_gpu_config`.
pub(super) struct ConfigSpace {
    /// `VIRTIO_GPU_EVENT_*` that happened and that the driver has not cleared.
    events: u32,
    num_scanouts: u32,
    /// How many capability sets there are: none without 3D.
    num_capsets: u32,
}

impl ConfigSpace {
    pub(super) fn new(num_scanouts: u32, num_capsets: u32) -> Self {
        Self {
            events: 0,
            num_scanouts,
            num_capsets,
        }
    }

    /// `VIRTIO_GPU_EVENT_*` that the driver has not cleared.
    pub(super) fn events(&self) -> u32 {
        self.events
    }

    /// Events that happened before a predecessor died.
    pub(super) fn resume(&mut self, events: u32) {
        self.events = events & VIRTIO_GPU_EVENT_DISPLAY;
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
        config[0..4].copy_from_slice(&self.events.to_le_bytes());
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

    /// The modes of the displays changed (`VIRTIO_GPU_EVENT_DISPLAY`).
    pub(super) fn set_display_event(&mut self) {
        self.events |= VIRTIO_GPU_EVENT_DISPLAY;
    }

    /// The device is reset.
    pub(super) fn reset(&mut self) {
        self.events = 0;
    }

    /// Takes a write to events_clear, which ends events; all other bytes are ignored. A front-end may pass on the whole
    /// structure, or single bytes.
    ///
    /// # Errors
    /// If it ends beyond [`MAX_CONFIG_LEN`].
    pub(super) fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let end = (offset as usize).saturating_add(data.len());
        if end > MAX_CONFIG_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a write up to byte {end} of a configuration of {CONFIG_LEN} bytes"),
            ));
        }
        let mut clear = [0; 4];
        for (at, byte) in (offset as usize..).zip(data) {
            let in_field = at.checked_sub(EVENTS_CLEAR);
            if let Some(to) = in_field.and_then(|at| clear.get_mut(at)) {
                *to = *byte;
            }
        }
        self.events &= !u32::from_le_bytes(clear);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(config: &ConfigSpace) -> u32 {
        let bytes = config.read(0, 4);
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn driver_clears_events_however_the_front_end_writes_them() {
        let mut config = ConfigSpace::new(1, 0);
        assert_eq!(events(&config), 0);
        for (offset, data, clears) in [
            (4, vec![1, 0, 0, 0], true),
            (4, vec![1], true),
            (0, [0_u32, 1, 1, 0].map(u32::to_le_bytes).concat(), true),
            (2, vec![0xff; 3], true),
            // Not events_clear, or not this event.
            (0, vec![0xff; 4], false),
            (8, vec![0xff; 248], false),
            (4, vec![0xfe, 0xff, 0xff, 0xff], false),
            (5, vec![1, 1, 1], false),
            (4, vec![], false),
        ] {
            config.set_display_event();
            assert_eq!(events(&config), 1);
            config.write(offset, &data).unwrap();
            assert_eq!(events(&config) == 0, clears, "{offset} {data:?}");
            // Only that.
            assert_eq!(
                config.read(4, 12),
                [0_u32, 1, 0].map(u32::to_le_bytes).concat()
            );
        }
        config.reset();
        assert_eq!(events(&config), 0);
    }

    #[test]
    fn write_beyond_the_structure_is_refused() {
        let mut config = ConfigSpace::new(1, 0);
        for (offset, len) in [(u32::MAX, 4), (253, 4), (257, 0)] {
            config.write(offset, &vec![0; len]).unwrap_err();
        }
        config.write(256, &[]).unwrap();
    }
}
