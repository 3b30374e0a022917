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

pub use queue_pass::{QueuePass, VirtqueueError};
pub use vring::Vring;
pub(crate) use vring::{VringObserver, signal};

mod queue_pass;
mod vring;

/// What every device offers, whatever it is: the rings as this room and `virtio-queue` serve them.
///
/// `VIRTIO_F_RING_RESET` is among them although it is the front-end that resets a ring, by stopping
/// and starting it: QEMU offers it to the guest on its own, passes on that the guest took it, and
/// the crate refuses what was not offered, which ends the connection. `VIRTIO_F_NOTIFY_ON_EMPTY` and
/// `VIRTIO_F_ANY_LAYOUT` mean nothing to a driver of virtio 1, from which QEMU hides them; but QEMU
/// lets it take them all the same.
pub const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_F_RING_RESET
    | 1 << VIRTIO_F_NOTIFY_ON_EMPTY
    | 1 << VIRTIO_F_ANY_LAYOUT
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Most entries of a queue: as many as virtio allows (1.2, 2.7) and crosvm offers. QEMU lets a guest
/// choose up to 1024, whatever the device's own number is. The crate refuses more, which ends the
/// connection.
pub const MAX_QUEUE_SIZE: usize = 32768;

/// The guest's memory as the front-end shared it last.
pub type GuestMemory = GuestMemoryAtomic<GuestMemoryMmap>;
/// The guest's memory, held as it was when a pass began.
pub type MemoryGuard = GuestMemoryLoadGuard<GuestMemoryMmap>;
/// A request of the driver.
pub type Chain = DescriptorChain<MemoryGuard>;
