// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of RESOURCE_MAP_BLOB and RESOURCE_UNMAP_BLOB.

/// Why memory cannot be mapped into the guest, or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MappingError {
    #[error(
        "the front-end maps no memory into the guest: QEMU 11.1 does for vhost-user-test-device-pci"
    )]
    Unavailable,
    #[error("resource {0} is mapped already")]
    IsMapped(u32),
    #[error("resource {0} is being destroyed")]
    Destroyed(u32),
    #[error("resource {0} is not mapped")]
    NotMapped(u32),
    #[error("{0} resources are mapped already, the maximum")]
    TooMany(usize),
    #[error("resource {id} cannot be mapped at byte {offset}: maps begin at whole pages")]
    Unaligned { id: u32, offset: u64 },
    #[error(
        "resource {id}: {len} bytes from byte {offset} on are not within the region of {region} bytes"
    )]
    OutsideRegion {
        id: u32,
        offset: u64,
        len: u64,
        region: u64,
    },
    #[error("resource {id} cannot be mapped over resource {other}")]
    Overlap { id: u32, other: u32 },
    #[error(
        "resource {id}: its memory, {len} bytes from byte {offset} of a file on, is none that can be mapped"
    )]
    File { id: u32, offset: u64, len: u64 },
    #[error("resource {0}: the front-end refuses to map or unmap it")]
    Refused(u32),
}
