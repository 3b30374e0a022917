// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an input device says in `STATUS=` when the host has taken it from a guest that runs.

use crate::FrontEndStatus;

/// The text begins so. The device's name follows, which somebody else may have chosen.
pub const RELEASED_TO_HOST: &str = "released to the host";

/// Whether the text `status` (`STATUS=`) of an input device's program says that the host has the device although a
/// front-end is connected.
#[must_use]
pub fn is_released_to_host(status: &str) -> bool {
    match FrontEndStatus::parse(status) {
        Some(FrontEndStatus::Connected { detail, .. }) => detail.starts_with(RELEASED_TO_HOST),
        Some(FrontEndStatus::Waiting { .. }) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_begin_of_the_detail_counts() {
        for (status, released) in [
            (
                "a front-end is connected: released to the host: /dev/input/event3 (X)",
                true,
            ),
            (
                "a front-end is connected, another waits (pid 7, uid 0): released to the host: X",
                true,
            ),
            (
                "a front-end is connected: the guest has released to the host: X",
                false,
            ),
            ("a front-end is connected", false),
            ("released to the host: X", false),
            ("waiting for a front-end on released to the host: X", false),
        ] {
            assert_eq!(is_released_to_host(status), released, "{status}");
        }
    }
}
