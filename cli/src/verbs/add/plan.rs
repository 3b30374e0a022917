// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The plan of what is to be added, made before anything is changed.

use crate::assignments::DeviceAssignments;
use crate::devices::Devices;
use crate::instance::Instance;
use crate::settings::{RenderServer, Settings};
use crate::unit_folders::UnitFolders;
use crate::unit_syntax::Directive;
use crate::verbs::error::AddError;

use super::access::Access;
use super::args::Args;

/// What is to be added.
pub(super) struct Plan {
    pub instance: Instance,
    pub service: ServicePlan,
    /// The directives of its socket; `None` to leave its drop-in as it is.
    pub socket: Option<Vec<Directive>>,
    /// The render server beside a GPU; `None` to leave its drop-in as it is.
    pub renderer: Option<RenderServer>,
    /// Whether it gets a socket for the VM's console.
    pub console: bool,
    /// Hints for the user.
    pub hints: Vec<String>,
}

/// The settings of a service.
pub(super) enum ServicePlan {
    /// These; others that are there already are replaced only with --force.
    New(Settings),
    /// The same, but only what may be changed without being asked differs from those that are there.
    Changed(Settings),
    /// Those that are there.
    Kept,
}

impl ServicePlan {
    /// The settings to write.
    pub(super) fn settings(&self) -> Option<&Settings> {
        match self {
            Self::New(settings) | Self::Changed(settings) => Some(settings),
            Self::Kept => None,
        }
    }
}

impl Plan {
    /// A plan of new settings, before it is known who may connect.
    pub(super) fn new(instance: Instance, settings: Settings, hints: Vec<String>) -> Self {
        Self {
            instance,
            service: ServicePlan::New(settings),
            socket: Some(Vec::new()),
            renderer: None,
            console: false,
            hints,
        }
    }

    /// The same with a socket for the VM's console.
    pub(super) fn with_console(self) -> Self {
        Self {
            console: true,
            ..self
        }
    }

    /// Sets who may connect: by the command line, or by a safe default. Returns who that is.
    pub(super) fn set_access(&mut self, args: &Args) -> Result<Option<Access>, AddError> {
        let device = self.service.settings().and_then(Settings::device);
        let host_gpu = args.virgl || args.vulkan || device.is_some();
        let access = Access::choose(&args.access, &self.instance, host_gpu)
            .map_err(|error| AddError::Value(error.into()))?;
        self.socket = Some(access.as_ref().map_or_else(Vec::new, Access::directives));
        Ok(access)
    }
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

/// A name that no other device of the VM has, nor one that is `planned`: the default, or the default with a number.
pub(super) fn free_name(
    default: &str,
    vm: &str,
    assignments: &DeviceAssignments,
    planned: &[Instance],
) -> String {
    let is_taken = |name: &str| {
        assignments
            .instances()
            .chain(planned)
            .any(|instance| instance.vm() == vm && instance.name() == Some(name))
    };
    std::iter::once(default.to_owned())
        .chain((2_u32..).map(|number| format!("{default}{number}")))
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| default.to_owned())
}
