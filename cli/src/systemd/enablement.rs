//! Enabling and disabling units over D-Bus, and what goes with it.

use super::error::{Error, answer};
use super::manager::Manager;

/// What systemd did to the files of a unit: the type of the change, a link and what it leads to.
type FileChange = (String, String, String);

/// The unit files of a service manager.
pub(crate) struct UnitFiles<'a> {
    manager: &'a Manager,
}

impl<'a> UnitFiles<'a> {
    pub(crate) fn new(manager: &'a Manager) -> Self {
        Self { manager }
    }

    /// Fails if one of these units is masked.
    pub(crate) async fn check_unmasked(
        &self,
        what: &'static str,
        units: &[String],
    ) -> Result<(), Error> {
        for unit in units {
            if let Some(mask) = self.manager.mask(unit).await {
                let unit = unit.clone();
                return Err(Error::Masked { what, unit, mask });
            }
        }
        Ok(())
    }

    /// Enables a unit; returns whether that changed anything. systemd has to [`reload`](Self::reload) then.
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
        let state = self
            .manager
            .proxy()
            .get_unit_file_state(unit.to_owned())
            .await;
        let state = answer(state, "ask whether a unit is enabled")?;
        Ok(state.is_some_and(|state| state == "enabled"))
    }

    /// Makes systemd read all unit files again (daemon-reload).
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        self.manager
            .call_privileged("Reload", &(), "reload systemd's units")
            .await
    }

    /// Resets the failed state of units; unknown units are ignored.
    pub(crate) async fn reset_failed(&self, units: &[String]) -> Result<(), Error> {
        for unit in units {
            let reset: Result<(), _> = self
                .manager
                .call_privileged("ResetFailedUnit", &(unit.as_str(),), "reset a unit")
                .await;
            match reset {
                Err(error) if !error.is_unknown_unit() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
