// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The id of a display.

use std::fmt;

/// Names a display among those of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DisplayId(u16);

impl DisplayId {
    /// The VMM's, which comes with `VHOST_USER_GPU_SET_SOCKET`.
    pub(crate) const VMM: Self = Self(0);

    /// A console's, counted from 0.
    pub(crate) const fn console(number: u16) -> Self {
        Self(number.saturating_add(1))
    }
}

impl fmt::Display for DisplayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the VMM's display"),
            number => write!(f, "console {number}"),
        }
    }
}
