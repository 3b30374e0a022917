// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Feature bits as masks of `GET_FEATURES` and `SET_FEATURES`, by the names of virtio 1.2, section 6, and
//! of vhost-user.

use vhost::vhost_user::VhostUserVirtioFeatures;
use virtio_bindings::{virtio_config, virtio_ring};

/// The device notifies when it has used all buffers: legacy.
pub const NOTIFY_ON_EMPTY: u64 = 1 << virtio_config::VIRTIO_F_NOTIFY_ON_EMPTY;
/// Requests may be split at any byte: legacy.
pub const ANY_LAYOUT: u64 = 1 << virtio_config::VIRTIO_F_ANY_LAYOUT;
/// A descriptor may point to a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
/// Both sides say after which index they want to be notified.
pub const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;
/// The device keeps to virtio 1.0 or newer.
pub const VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;
/// The device sees memory through an IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << virtio_config::VIRTIO_F_ACCESS_PLATFORM;
/// The packed form of virtqueues.
pub const RING_PACKED: u64 = 1 << virtio_config::VIRTIO_F_RING_PACKED;
/// The back-end has vhost-user protocol features. QEMU sets it with the driver's features.
pub const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
