// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Enabling and disabling units over D-Bus.

use super::error::{Error, unless_refused};
use super::manager::Manager;

/// What systemd did to the files of a unit: the type of the change, a link and what it leads to.
type FileChange = (String, String, String);

/// Enables and disables units of a service manager.
pub(crate) struct Enablement<'a> {
    manager: &'a Manager,
}

impl<'a> Enablement<'a> {
    pub(crate) fn new(manager: &'a Manager) -> Self {
        Self { manager }
    }

    /// Enables a unit; returns whether that changed anything. systemd has to
    /// [`reload`](Manager::reload) then.
    pub(crate) async fn enable(&self, unit: &str) -> Result<bool, Error> {
        let asked = self
            .manager
            .call_privileged(
                "EnableUnitFiles",
                &(&[unit][..], false, false),
                "enable a unit",
            )
            .await;
        let (_, changes): (bool, Vec<FileChange>) = match asked {
            Ok(answer) => answer,
            Err(error) => return Err(self.manager.refused("enable", unit, error).await),
        };
        Ok(!changes.is_empty())
    }

    /// Disables a unit; returns whether that changed anything.
    pub(crate) async fn disable(&self, unit: &str) -> Result<bool, Error> {
        let asked = self
            .manager
            .call_privileged("DisableUnitFiles", &(&[unit][..], false), "disable a unit")
            .await;
        let changes: Vec<FileChange> = match asked {
            Ok(changes) => changes,
            Err(error) => return Err(self.manager.refused("disable", unit, error).await),
        };
        // No error to systemd, which has done nothing then.
        if changes.iter().any(|(change, ..)| change == "masked") {
            return Err(self.manager.masked("disable", unit, unit).await);
        }
        Ok(!changes.is_empty())
    }

    /// Whether a unit is started at boot.
    pub(crate) async fn is_enabled(&self, unit: &str) -> Result<bool, Error> {
        let state = self.manager.proxy().get_unit_file_state(unit).await;
        let state = unless_refused(state, "ask whether a unit is enabled")?;
        Ok(state.is_some_and(|state| state == "enabled"))
    }
}
