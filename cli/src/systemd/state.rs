// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of a backend: what the states of its two units make together.

use std::fmt;

use serde::Serialize;

/// The state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendState {
    /// It serves a VMM, or is about to.
    Running,
    /// A unit is being started.
    Starting,
    /// A unit is being stopped.
    Stopping,
    /// The socket waits for a VMM.
    Listening,
    /// The socket waits, but the device of the host is missing: a VMM that connects is refused.
    #[serde(rename = "no-device")]
    NoDevice,
    /// The socket waits, but its file was removed, or systemd has closed it: no VMM can connect.
    #[serde(rename = "no-socket")]
    NoSocket,
    /// A unit failed, and the socket does not listen.
    Failed,
    /// Not started, or stopped.
    Inactive,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Listening => "listening",
            Self::NoDevice => "no-device",
            Self::NoSocket => "no-socket",
            Self::Failed => "failed",
            Self::Inactive => "inactive",
        })
    }
}

impl BackendState {
    /// The state by the active states of both units. A running service comes first; a failed service counts only
    /// if its socket does not listen, since the next VMM would start it again.
    pub(super) fn new(socket: &str, service: &str) -> Self {
        match (socket, service) {
            (_, "active" | "reloading" | "refreshing") => Self::Running,
            (_, "activating") => Self::Starting,
            (_, "deactivating") => Self::Stopping,
            ("active", _) => Self::Listening,
            ("activating", _) => Self::Starting,
            ("deactivating", _) => Self::Stopping,
            ("failed", _) | (_, "failed") => Self::Failed,
            _ => Self::Inactive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_make_one() {
        assert_eq!(BackendState::new("active", "active"), BackendState::Running);
        assert_eq!(
            BackendState::new("inactive", "active"),
            BackendState::Running
        );
        assert_eq!(
            BackendState::new("active", "activating"),
            BackendState::Starting
        );
        assert_eq!(
            BackendState::new("active", "deactivating"),
            BackendState::Stopping
        );
        assert_eq!(
            BackendState::new("active", "inactive"),
            BackendState::Listening
        );
        assert_eq!(
            BackendState::new("active", "failed"),
            BackendState::Listening
        );
        assert_eq!(
            BackendState::new("failed", "inactive"),
            BackendState::Failed
        );
        assert_eq!(
            BackendState::new("inactive", "failed"),
            BackendState::Failed
        );
        assert_eq!(
            BackendState::new("inactive", "inactive"),
            BackendState::Inactive
        );
    }

    #[test]
    fn json_and_table_use_the_same_words() {
        for state in [
            BackendState::Running,
            BackendState::Starting,
            BackendState::Stopping,
            BackendState::Listening,
            BackendState::NoDevice,
            BackendState::NoSocket,
            BackendState::Failed,
            BackendState::Inactive,
        ] {
            assert_eq!(
                serde_json::to_string(&state).expect("a string"),
                format!("\"{state}\"")
            );
        }
    }
}
