// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl list-backends`: the programs that are installed as backends.

use crate::descriptors::{self, Descriptor, DescriptorState, known};
use crate::output::{Cell, Emphasis, Output, Row};

use super::error::Error;

/// List the installed backends, by their descriptors
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Descriptors are searched in $XDG_CONFIG_HOME/qemu/vhost-user, /etc/qemu/vhost-user and
/usr/share/qemu/vhost-user, and listed in the order of QEMU's conventions. A file hides files of the same name
in later folders; an empty file masks them. Every program in effect is asked for its capabilities
(--print-capabilities). The first folder is searched only if nobody but you and root can change it.

STATE is usable, broken, hidden, masked, or mask for an empty file.")]
pub(crate) struct Args {}

impl Row for Descriptor {
    const HEADER: &[&str] = &["NAME", "TYPE", "STATE", "BINARY", "FEATURES", "DESCRIPTOR"];

    fn cells(&self) -> Vec<Cell> {
        let emphasis = match self.state {
            DescriptorState::Usable => Emphasis::Good,
            DescriptorState::Broken => Emphasis::Bad,
            DescriptorState::Hidden | DescriptorState::Masked | DescriptorState::Mask => {
                Emphasis::Faint
            }
        };
        vec![
            Cell::new(&self.name),
            Cell::optional(self.device_type.as_ref()),
            Cell::new(self.state).emphasis(emphasis),
            Cell::optional(self.binary.as_ref().map(|path| path.display())),
            Cell::new(self.features.as_deref().unwrap_or_default().join(",")),
            Cell::new(self.path.display()),
        ]
    }
}

pub(super) fn run(Args {}: &Args, output: &Output) -> Result<(), Error> {
    let found = descriptors::list(&descriptors::folders(), true);
    if let Some(note) = descriptors::why_own_folder_is_ignored() {
        output.hint(&note);
    }
    if output.json(&found)? {
        return Ok(());
    }
    output.table(&found)?;
    let mut notes = Vec::new();
    for descriptor in &found {
        let path = descriptor.path.display();
        if let Some(by) = &descriptor.by {
            notes.push(format!(
                "{path} is {} by {}.",
                descriptor.state,
                by.display()
            ));
            continue;
        }
        for problem in &descriptor.problems {
            notes.push(format!("{path}: {problem}."));
        }
        if descriptor.breaks_libvirt {
            notes.push(format!(
                "{path}: libvirt starts no vhost-user GPU while this file exists. Fix or remove it."
            ));
        }
    }
    for (name, device_type) in known::all_installed() {
        if !found.iter().any(|descriptor| descriptor.is_called(name)) {
            notes.push(format!(
                "{name} is also installed and needs no descriptor: vhostctl add {device_type} VM --backend={name}"
            ));
        }
    }
    if !notes.is_empty() && output.legend() {
        output.blank()?;
        output.lines(&notes)?;
    }
    output.count(found.len(), "descriptor")?;
    Ok(())
}
