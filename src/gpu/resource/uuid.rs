// SPDX-License-Identifier: Apache-2.0 OR MIT
//! UUIDs of resources.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// A version 4 UUID (RFC 9562).
pub(super) fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    if getrandom(&mut uuid, GetRandomFlags::NONBLOCK)? != uuid.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
