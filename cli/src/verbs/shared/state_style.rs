// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the states of backends look.

use crate::output::{Emphasis, Glyph};
use crate::systemd::BackendState;

/// The colours of systemctl.
pub(crate) fn emphasis(state: BackendState) -> Emphasis {
    match state {
        BackendState::Running => Emphasis::Good,
        BackendState::Failed | BackendState::NoDevice | BackendState::NoSocket => Emphasis::Bad,
        BackendState::Inactive => Emphasis::Faint,
        _ => Emphasis::None,
    }
}

/// The dots of systemctl.
pub(crate) fn glyph(state: BackendState) -> Glyph {
    match state {
        BackendState::Failed | BackendState::NoDevice | BackendState::NoSocket => Glyph::Cross,
        BackendState::Inactive => Glyph::Circle,
        BackendState::Running | BackendState::Listening => Glyph::Dot,
        BackendState::Starting | BackendState::Stopping => Glyph::Arrow,
    }
}
