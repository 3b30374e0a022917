//! The plan of what is to be added, made before anything is changed.

use crate::assignments::DeviceAssignments;
use crate::devices::Devices;
use crate::instance::Instance;
use crate::settings::Settings;
use crate::unit_folders::UnitFolders;
use crate::verbs::error::AddError;

use super::access::Access;

/// What is to be added.
pub(super) struct Plan {
    pub instance: Instance,
    pub settings: Settings,
    /// Who may connect, unless as in the template of the unit.
    pub access: Option<Access>,
    /// Hints for the user.
    pub hints: Vec<String>,
}

/// The devices and assignments of the host.
pub(super) struct HostInventory {
    pub devices: Devices,
    pub folders: UnitFolders,
    pub assignments: DeviceAssignments,
}

impl HostInventory {
    pub(super) fn read() -> Self {
        let folders = UnitFolders::system();
        Self {
            devices: Devices::new(),
            assignments: DeviceAssignments::read(&folders),
            folders,
        }
    }
}

/// Fails if an option is given that is for other types only.
pub(super) fn reject_options(what: &str, unwanted: &[(&str, bool)]) -> Result<(), AddError> {
    match unwanted.iter().find(|(_, is_there)| *is_there) {
        Some((option, _)) => Err(AddError::Usage(format!(
            "{option} does not apply to {what}. See 'vhostctl add --help'."
        ))),
        None => Ok(()),
    }
}

/// A name that no other device of the VM has: the default, or the default with a number.
pub(super) fn free_name(default: &str, vm: &str, assignments: &DeviceAssignments) -> String {
    let is_taken = |name: &str| {
        assignments
            .instances()
            .any(|instance| instance.vm() == vm && instance.name() == Some(name))
    };
    std::iter::once(default.to_owned())
        .chain((2_u32..).map(|number| format!("{default}{number}")))
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| default.to_owned())
}
