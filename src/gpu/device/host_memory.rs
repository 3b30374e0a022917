// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The region of the guest's addresses into which the front-end maps memory of the host
//! (`VIRTIO_GPU_SHM_ID_HOST_VISIBLE`), and the maps that it is asked for.

use std::io;
use std::str::FromStr;

use virtio_bindings::virtio_gpu::virtio_gpu_shm_id_VIRTIO_GPU_SHM_ID_HOST_VISIBLE as HOST_VISIBLE;

use super::tokens::HOST_MEMORY;
use crate::backend::{
    DeviceContext, RegionError, SharedMemory, SharedMemoryOutcome, SharedMemoryRegion, SizeError,
    parse_size,
};
use crate::gpu::virtio_gpu::VirtioGpu;

/// How many bytes of the guest's addresses are for memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostVisibleMemory(SharedMemoryRegion);

/// There is no such size.
#[derive(Debug, thiserror::Error)]
pub enum HostVisibleMemoryError {
    /// It is none.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// It is none of a region.
    #[error(transparent)]
    Region(#[from] RegionError),
}

const DEFAULT: SharedMemoryRegion = match SharedMemoryRegion::new(HOST_VISIBLE as u8, 1 << 30) {
    Ok(region) => region,
    Err(_) => panic!("not a size of a region"),
};

impl Default for HostVisibleMemory {
    /// 1 GiB.
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl FromStr for HostVisibleMemory {
    type Err = HostVisibleMemoryError;

    fn from_str(size: &str) -> Result<Self, Self::Err> {
        let len = parse_size(size)?;
        Ok(Self(SharedMemoryRegion::new(HOST_VISIBLE as u8, len)?))
    }
}

/// The region, if the device has it.
pub(super) struct HostMemoryRegion {
    region: Option<SharedMemory>,
    /// The front-end was stopping the device when it was to be asked. It is asked again when a virtqueue brings an event, as
    /// one that is started does.
    is_withdrawn: bool,
    /// A virtqueue brought an event since the last outcome was looked for.
    may_be_started: bool,
    /// It was said that the front-end maps nothing.
    has_warned: bool,
}

impl HostMemoryRegion {
    /// The region.
    ///
    /// # Errors
    /// As [`DeviceContext::shared_memory`].
    pub(super) fn new(context: &DeviceContext, memory: HostVisibleMemory) -> io::Result<Self> {
        let HostVisibleMemory(region) = memory;
        Ok(Self {
            region: Some(context.shared_memory(region, HOST_MEMORY)?),
            is_withdrawn: false,
            may_be_started: false,
            has_warned: false,
        })
    }

    /// No region.
    pub(super) fn none() -> Self {
        Self {
            region: None,
            is_withdrawn: false,
            may_be_started: false,
            has_warned: false,
        }
    }

    /// A virtqueue brought an event: it may have been started.
    pub(super) fn queue_event(&mut self) {
        self.may_be_started = true;
    }

    /// Takes note of what the front-end did. Returns whether commands that waited for it are complete.
    pub(super) fn receive(&mut self, virtio_gpu: &mut VirtioGpu) -> bool {
        let Some(memory) = &self.region else {
            return false;
        };
        let mappings = virtio_gpu.mappings_mut();
        if let Some(outcome) = memory.take_outcome() {
            self.is_withdrawn = outcome == SharedMemoryOutcome::Withdrawn;
            mappings.finish(outcome);
        }
        // What the front-end did before it started the virtqueue may be seen only now.
        self.is_withdrawn &= !std::mem::take(&mut self.may_be_started);
        let len = memory.region().len();
        mappings.set_region(memory.is_available().then_some(len));
        mappings.has_completed()
    }

    /// Asks the front-end for what is next. Returns whether commands that needed no front-end are complete. Call it while
    /// the driver runs.
    pub(super) fn send(&mut self, virtio_gpu: &mut VirtioGpu) -> bool {
        let Some(memory) = self.region.as_ref().filter(|_| !self.is_withdrawn) else {
            return false;
        };
        if !memory.is_available() && !std::mem::replace(&mut self.has_warned, true) {
            log::warn!(
                "this front-end maps no memory into the guest, which has no Vulkan without: use QEMU 11.1 or newer and its \
                 vhost-user-test-device-pci, as \"vhostctl qemu-args\" prints it"
            );
        }
        while let Some(request) = virtio_gpu.next_mapping() {
            if memory.send(request) {
                break;
            }
            // Commands fail, and what is next needs no front-end.
            virtio_gpu.mappings_mut().finish(SharedMemoryOutcome::Lost);
        }
        virtio_gpu.mappings_mut().has_completed()
    }

    /// The driver is gone: what the front-end was not asked for yet, it is not.
    pub(super) fn cancel(&mut self, virtio_gpu: &mut VirtioGpu) {
        self.is_withdrawn = false;
        if self.region.as_ref().is_some_and(SharedMemory::cancel) {
            let mappings = virtio_gpu.mappings_mut();
            mappings.finish(SharedMemoryOutcome::Withdrawn);
        }
    }
}
