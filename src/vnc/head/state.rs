// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a head shows.

use std::fmt;

use conventions::ScreenState;

use crate::geometry::Size;

/// What a head shows: the guest's pixels, or why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadState {
    /// There is no connection to the GPU.
    Unreachable,
    /// The GPU is connected and has said nothing of this head: no guest uses it.
    Waiting,
    /// The guest has switched it off, or no guest runs: the GPU says the same of both.
    Off,
    /// Its picture is larger than [`Framebuffer`](super::Framebuffer) allows, or than what the other heads' pictures
    /// leave.
    TooLarge(Size),
    /// The guest's pixels.
    On,
}

impl HeadState {
    /// The same in words that vhostctl reads.
    pub(super) fn screen_state(self) -> ScreenState {
        match self {
            Self::Unreachable => ScreenState::Unreachable,
            Self::Waiting => ScreenState::Waiting,
            Self::Off => ScreenState::Off,
            Self::TooLarge(_) => ScreenState::TooLarge,
            Self::On => ScreenState::On,
        }
    }
}

impl fmt::Display for HeadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("The VM's GPU cannot be reached."),
            Self::Waiting => f.write_str("The VM does not show anything yet."),
            Self::Off => {
                f.write_str("The VM is off, has not begun to draw, or has its screen off.")
            }
            Self::TooLarge(size) => write!(f, "A screen of {size} is too large for this console."),
            Self::On => f.write_str("The VM's screen is shown."),
        }
    }
}
