// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The settings in the drop-ins of an instance: its device, its options, its program.
//!
//! vhostctl writes one file per unit of an instance, `50-vhostctl.conf`, and reads all that count, also those of
//! `systemctl edit`: what somebody set by hand is as true as what was added here.

pub(crate) mod drop_in;
mod dynamic_user;
mod grab;
mod options;
mod render_server;

use std::fs;
use std::path::PathBuf;

use crate::instance::{Instance, UnitKind};
use crate::unit_folders::UnitFolders;
use crate::unit_syntax::{self, Assignment, Directive, expand, words};

pub(crate) use grab::{GrabToggle, group_file};
pub(crate) use options::{
    DeviceAddress, GpuOptions, HEADS_MAX, InputOptions, MaxHostmem, ProgramOptions, Resolutions,
    VirtualKind, VncOptions,
};
pub(crate) use render_server::RenderServer;

/// A section of ours, which systemd leaves alone as its name begins with "X-".
const SECTION: &str = "X-vhostctl";

/// The settings of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The type of device, where the kind of unit does not tell.
    pub device_type: Option<String>,
    /// The installed program, by the name of its descriptor or its own, where the unit runs any (`Backend=`).
    pub program: Option<String>,
    /// The options of our own programs.
    pub options: ProgramOptions,
    /// The whole command line, where it is not the template's.
    pub command: Vec<String>,
    /// Device nodes that the service may open, besides the one in the options.
    pub nodes: Vec<String>,
    /// The user that the service runs as; `None` for a dynamic user.
    pub user: Option<String>,
    /// Further directives of the service, which are not read back.
    pub service: Vec<Directive>,
}

impl Settings {
    /// The settings in effect; files that cannot be read are ignored.
    pub(crate) fn read(folders: &UnitFolders, instance: &Instance) -> Self {
        Self::from_assignments(&assignments(folders, instance), instance)
    }

    /// Which device of the host the program opens.
    pub(crate) fn address(&self) -> Option<DeviceAddress> {
        self.options.address()
    }

    /// The path of the device of the host.
    pub(crate) fn device(&self) -> Option<&str> {
        self.options.device()
    }

    fn from_assignments(assignments: &[Assignment], instance: &Instance) -> Self {
        let specifier = instance.specifier();
        let mut dynamic = true;
        let mut settings = Self::default();
        let mut environment = Vec::new();
        for Assignment {
            section,
            key,
            value,
        } in assignments
        {
            let plain = expand(value, &specifier);
            match (section.as_str(), key.as_str()) {
                (SECTION, "Type") => settings.device_type = Some(words(&plain).join(" ")),
                (SECTION, "Backend") => settings.program = Some(words(&plain).join(" ")),
                ("Service", "Environment") if value.is_empty() => environment.clear(),
                ("Service", "Environment") => environment.extend(words(&plain)),
                ("Service", "ExecStart") if instance.kind() == UnitKind::Program => {
                    settings.command = words(&plain)
                        .iter()
                        .map(|word| unit_syntax::from_command_word(word))
                        .collect();
                }
                ("Service", "DeviceAllow") if value.is_empty() => settings.nodes.clear(),
                ("Service", "DeviceAllow") => {
                    settings.nodes.extend(words(&plain).into_iter().take(1))
                }
                ("Service", "User") => settings.user = Some(plain),
                ("Service", "DynamicUser") => dynamic = plain != "no",
                _ => {}
            }
        }
        settings.options = ProgramOptions::from_environment(instance.kind(), &environment);
        settings.user = match settings.user.filter(|user| !user.is_empty()) {
            _ if dynamic => None,
            None => Some("root".to_owned()),
            user => user,
        };
        let options = &settings.options;
        let own =
            |node: &str| options.device() == Some(node) || options.allowed_devices() == Some(node);
        settings.nodes.retain(|node| !own(node));
        settings
    }
}

/// The program that the template of an instance puts before one that takes a connected socket.
pub(crate) fn accept_program(folders: &UnitFolders, instance: &Instance) -> Option<PathBuf> {
    assignments(folders, instance)
        .into_iter()
        .rfind(|it| it.section == SECTION && it.key == "Accept")
        .map(|it| PathBuf::from(expand(&it.value, &instance.specifier())))
}

/// Whether a user is root, by name or number.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user, "root" | "0")
}

/// All assignments of a service, in the order in which systemd reads them.
fn assignments(folders: &UnitFolders, instance: &Instance) -> Vec<Assignment> {
    folders
        .files(instance)
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| unit_syntax::parse(&text))
        .collect()
}

#[cfg(test)]
mod tests;
