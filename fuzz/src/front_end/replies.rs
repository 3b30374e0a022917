// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Payloads of a front-end's replies.

use vhost_user_backends::gpu::fuzzing::{HEADER_LEN, MAX_EDID_LEN, MAX_SCANOUTS, MODES_LEN};

use crate::bytes::Bytes;

/// The payload of a reply to `GET_DISPLAY_INFO`.
pub(super) fn modes(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut payload = vec![0; HEADER_LEN + MODES_LEN];
    let count = usize::from(bytes.u8()) % (MAX_SCANOUTS + 1);
    for mode in payload[HEADER_LEN..].chunks_mut(24).take(count) {
        let fields = [
            0,
            0,
            bytes.mostly(&[640, 1280, 0, 1]),
            bytes.mostly(&[480, 800, 0, 1]),
            bytes.mostly(&[1, 1, 0]),
            0,
        ];
        for (to, field) in mode.chunks_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
    }
    payload
}

/// The payload of a reply to `GET_EDID`.
pub(super) fn edid(bytes: &mut Bytes<'_>) -> Vec<u8> {
    const OK_EDID: u32 = 0x1104;
    let mut payload = vec![0; HEADER_LEN + 8 + MAX_EDID_LEN];
    let kind = bytes.mostly(&[OK_EDID, OK_EDID, 0x1200, 0]);
    let size = bytes.mostly(&[128, 256, 1024, 0, 1025]);
    payload[..4].copy_from_slice(&kind.to_le_bytes());
    payload[HEADER_LEN..][..4].copy_from_slice(&size.to_le_bytes());
    payload[HEADER_LEN + 8..].fill(bytes.u8());
    payload
}
