// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtio features that a front-end enables although the device does not offer them.

use std::fmt;

/// The transport's feature bits (virtio 1.3, section 6), and QEMU's device options for them. QEMU offers a
/// guest what its options say, whatever the backend offers.
const TRANSPORT: [(u32, &str, Option<&str>); 15] = [
    (24, "VIRTIO_F_NOTIFY_ON_EMPTY", Some("notify_on_empty")),
    (26, "VHOST_F_LOG_ALL", None),
    (27, "VIRTIO_F_ANY_LAYOUT", Some("any_layout")),
    (28, "VIRTIO_F_INDIRECT_DESC", Some("indirect_desc")),
    (29, "VIRTIO_F_EVENT_IDX", Some("event_idx")),
    (30, "VHOST_USER_F_PROTOCOL_FEATURES", None),
    (32, "VIRTIO_F_VERSION_1", None),
    (33, "VIRTIO_F_ACCESS_PLATFORM", Some("iommu_platform")),
    (34, "VIRTIO_F_RING_PACKED", Some("packed")),
    (35, "VIRTIO_F_IN_ORDER", Some("in_order")),
    (36, "VIRTIO_F_ORDER_PLATFORM", None),
    (37, "VIRTIO_F_SR_IOV", None),
    (38, "VIRTIO_F_NOTIFICATION_DATA", None),
    (40, "VIRTIO_F_RING_RESET", Some("queue_reset")),
    (41, "VIRTIO_F_ADMIN_VQ", None),
];

/// Feature bits that the front-end set and the device does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unoffered(pub(crate) u64);

impl std::error::Error for Unoffered {}

impl fmt::Display for Unoffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the front-end enables what this device does not offer:")?;
        let bits = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 == 1);
        let mut separator = " ";
        for bit in bits {
            f.write_str(separator)?;
            separator = ", ";
            match TRANSPORT.iter().find(|(number, ..)| *number == bit) {
                Some((_, name, Some(option))) => {
                    write!(f, "{name} (QEMU: do not set {option}=on on the device)")?;
                }
                Some((_, name, None)) => f.write_str(name)?,
                None => write!(f, "virtio feature {bit}")?,
            }
        }
        Ok(())
    }
}
