// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Split virtqueues (virtio 1.2, 2.7) in guest memory.

use vhost::vhost_user::message::VhostUserVirtioFeatures;
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_F_ANY_LAYOUT, VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

pub(crate) use positions::Positions;
#[cfg(test)]
pub(crate) use positions::{Position, PositionError};
pub use queue_pass::QueuePass;
pub use rings::VirtqueueError;
pub use vring::Vring;
pub(crate) use vring::{VringObserver, signal};

mod positions;
mod queue_pass;
mod rings;
mod vring;

#[cfg(test)]
mod tests;

/// Feature bits that every device offers (virtio 1.2, section 6).
///
/// Some are offered only because QEMU passes them on when a guest accepts them, and `vhost-user-backend` ends the
/// connection over a feature that was not offered: `VIRTIO_F_RING_RESET`, which the front-end implements by stopping
/// and starting the virtqueue; `VIRTIO_F_NOTIFY_ON_EMPTY` and `VIRTIO_F_ANY_LAYOUT`, which mean nothing in virtio 1.
pub const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_F_RING_RESET
    | 1 << VIRTIO_F_NOTIFY_ON_EMPTY
    | 1 << VIRTIO_F_ANY_LAYOUT
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Limit on the entries of a virtqueue: the most that virtio allows (1.2, 2.7). QEMU lets a guest choose up to 1024,
/// whatever the device says; `vhost-user-backend` ends the connection over a size above the limit.
pub const MAX_QUEUE_SIZE: usize = 32768;

/// The guest's memory, always as the front-end shares it now.
pub type GuestMemory = GuestMemoryAtomic<GuestMemoryMmap>;
/// The guest's memory as it was when a pass began.
pub type MemoryGuard = GuestMemoryLoadGuard<GuestMemoryMmap>;
/// A descriptor chain: a request of the driver. `head_index()` is what [`QueuePass::add_used`] takes;
/// `reader(&memory)` and `writer(&memory)` are `io::Read` and `io::Write` over its buffers, checked against
/// [`QueuePass::memory`].
pub type Chain = DescriptorChain<MemoryGuard>;
