// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the host takes an input device from a guest that runs: the options of vhost-user-input, and what its unit needs
//! for them.

use crate::instance::Instance;
use crate::unit_syntax::{Directive, quoted};

/// The folder of the files by which the devices of a VM change hands together, below which each VM has one of its own.
const GROUPS: &str = "/run/vhost-user-grab";

/// The value of `--grab-toggle`: a chord, by its name of QEMU and libvirt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GrabToggle {
    CtrlCtrl,
    AltAlt,
    ShiftShift,
    MetaMeta,
    Scrolllock,
    CtrlScrolllock,
}

impl GrabToggle {
    const ALL: [Self; 6] = [
        Self::CtrlCtrl,
        Self::AltAlt,
        Self::ShiftShift,
        Self::MetaMeta,
        Self::Scrolllock,
        Self::CtrlScrolllock,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CtrlCtrl => "ctrl-ctrl",
            Self::AltAlt => "alt-alt",
            Self::ShiftShift => "shift-shift",
            Self::MetaMeta => "meta-meta",
            Self::Scrolllock => "scrolllock",
            Self::CtrlScrolllock => "ctrl-scrolllock",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|toggle| toggle.name() == name)
    }
}

/// The file of the group of a VM's devices (`--grab-group`).
pub(crate) fn group_file(instance: &Instance) -> String {
    format!("{GROUPS}/{}/released", instance.vm())
}

/// What a unit needs to use the file of a group: its folder, which root makes for all members, whose users are
/// different ones of one group.
pub(super) fn group_directives(file: &str) -> Vec<Directive> {
    let Some((folder, _)) = file.rsplit_once('/') else {
        return Vec::new();
    };
    let make = format!("+/usr/bin/install -d -m 0770 -g input {}", quoted(folder));
    vec![
        Directive::new("ExecStartPre", make),
        Directive::new("ReadWritePaths", quoted(&format!("-{folder}"))),
    ]
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for toggle in GrabToggle::value_variants() {
            let name = toggle
                .to_possible_value()
                .map(|value| value.get_name().to_owned());
            assert_eq!(name.as_deref(), Some(toggle.name()));
            assert_eq!(GrabToggle::parse(toggle.name()), Some(*toggle));
        }
        assert_eq!(GrabToggle::parse("ctrl"), None);
    }
}
