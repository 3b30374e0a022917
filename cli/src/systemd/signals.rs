// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals to the main processes of services, over D-Bus: systemd sends them, wherever and as whomever a service runs.

use super::error::Error;
use super::manager::Manager;

/// Sends signals to services of a service manager.
pub(crate) struct UnitSignals<'a> {
    manager: &'a Manager,
}

impl<'a> UnitSignals<'a> {
    pub(crate) fn new(manager: &'a Manager) -> Self {
        Self { manager }
    }

    /// Sends `signal` to the main process of `service`; `word` says what for, as in "Failed to release ...".
    pub(crate) async fn send(
        &self,
        service: &str,
        signal: i32,
        word: &'static str,
    ) -> Result<(), Error> {
        let sent: Result<(), _> = self
            .manager
            .call_privileged("KillUnit", &(service, "main", signal), "signal a service")
            .await;
        match sent {
            Ok(()) => Ok(()),
            Err(error) => Err(self.manager.refused(word, service, error).await),
        }
    }
}
