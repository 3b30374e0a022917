// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The numbers of scanouts in requests.

use super::{DecodeError, MAX_SCANOUTS};

/// Checks that the device has scanout `id`.
pub(super) fn scanout_id(id: u32) -> Result<u32, DecodeError> {
    if (id as usize) < MAX_SCANOUTS {
        Ok(id)
    } else {
        Err(DecodeError::ScanoutId(id))
    }
}
