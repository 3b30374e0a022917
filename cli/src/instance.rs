//! Names: which unit is which device of which VM.
//!
//! A GPU is `vhost-user-gpu@VM`, an input device `vhost-user-input@VM:NAME`, any other backend
//! `vhost-user@VM:NAME`. The instance is taken as it is written in the name of the unit, escapes
//! included, so that a name that is shown can be used anywhere. New instances have plain names.

use std::fmt;

use clap::ValueEnum;
use conventions::{SOCKET_FOLDER, SOCKET_PATH_MAX};
use serde::Serialize;

/// A kind of unit: one for GPUs, one for input devices, one for all other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnitKind {
    Gpu,
    Input,
    /// Any installed program, for a device of any type.
    #[serde(rename = "backend")]
    #[value(skip)]
    Program,
}

impl UnitKind {
    /// All kinds.
    pub(crate) const ALL: [UnitKind; 3] = [UnitKind::Gpu, UnitKind::Input, UnitKind::Program];

    /// The template's name without its suffix, such as `vhost-user-gpu`.
    pub(crate) fn template(self) -> &'static str {
        match self {
            UnitKind::Gpu => "vhost-user-gpu",
            UnitKind::Input => "vhost-user-input",
            UnitKind::Program => "vhost-user",
        }
    }

    /// Whether a VM can have several, each with a name.
    pub(crate) fn is_named(self) -> bool {
        match self {
            UnitKind::Gpu => false,
            UnitKind::Input | UnitKind::Program => true,
        }
    }

    /// Its name, which is also the name of the folder of its sockets.
    pub(crate) fn name(self) -> &'static str {
        match self {
            UnitKind::Gpu => "gpu",
            UnitKind::Input => "input",
            UnitKind::Program => "backend",
        }
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One of the two units that a backend consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitType {
    Socket,
    Service,
}

impl UnitType {
    /// Both types.
    pub(crate) const ALL: [Self; 2] = [Self::Socket, Self::Service];

    /// The suffix of the unit's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Service => "service",
        }
    }
}

/// Why a name is not valid for a VM or a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error(
        "'{1}' contains {0:?}; names consist of A-Z a-z 0-9 _ . - only, as they become part of the names of units \
         and sockets"
    )]
    Character(char, String),
    #[error("'{0}' begins with a dash")]
    Dash(String),
    #[error("'{0}' is a directory name and cannot name a VM or a device")]
    Dots(String),
    #[error(
        "'{name}' is too long: the path of its socket, {path}, would have {} bytes; the limit is {SOCKET_PATH_MAX}",
        path.len()
    )]
    Length { name: String, path: String },
    #[error("'{0}' is reserved: '{1}:{0}' is the GPU of the VM. Use another name")]
    Reserved(String, String),
    #[error("a VM has one GPU, which has no name")]
    Needless,
}

/// Checks the name of a VM, or of a device within one.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match name.chars().find(|c| !plain(*c)) {
        Some(c) => Err(NameError::Character(c, name.to_owned())),
        None if name.is_empty() => Err(NameError::Empty),
        None if name.starts_with('-') => Err(NameError::Dash(name.to_owned())),
        None if matches!(name, "." | "..") => Err(NameError::Dots(name.to_owned())),
        None => Ok(()),
    }
}

/// Checks a name on the command line.
pub(crate) fn parse_name(name: &str) -> Result<String, NameError> {
    check_name(name).map(|()| name.to_owned())
}

/// The identity of a backend: its kind, its VM and, unless it is a GPU, its name within the VM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    // In this order an instance sorts by VM, and a VM's GPU comes first.
    vm: String,
    kind: UnitKind,
    name: Option<String>,
}

impl Instance {
    /// A new instance, whose names are valid for units, sockets and QEMU.
    pub(crate) fn checked(kind: UnitKind, vm: &str, name: Option<&str>) -> Result<Self, NameError> {
        check_name(vm)?;
        if let Some(name) = name {
            check_name(name)?;
            if kind == UnitKind::Gpu {
                return Err(NameError::Needless);
            }
            if name == UnitKind::Gpu.name() {
                return Err(NameError::Reserved(name.to_owned(), vm.to_owned()));
            }
        } else if kind != UnitKind::Gpu {
            return Err(NameError::Empty);
        }
        let instance = Self {
            vm: vm.to_owned(),
            kind,
            name: name.map(str::to_owned),
        };
        let path = instance.socket();
        if path.len() > SOCKET_PATH_MAX {
            let name = instance.specifier();
            return Err(NameError::Length { name, path });
        }
        Ok(instance)
    }

    /// The path of its socket, unless a drop-in sets another one.
    pub(crate) fn socket(&self) -> String {
        format!(
            "{SOCKET_FOLDER}/{}/{}.sock",
            self.kind.name(),
            self.specifier()
        )
    }

    /// The part of the units' names after the "@".
    pub(crate) fn specifier(&self) -> String {
        match &self.name {
            Some(name) => format!("{}:{name}", self.vm),
            None => self.vm.clone(),
        }
    }

    /// The backend that a unit belongs to; `None` if it is none of ours, a template itself included.
    pub(crate) fn from_unit(unit: &str) -> Option<Self> {
        UnitName::parse(unit).map(|name| name.instance)
    }

    pub(crate) fn vm(&self) -> &str {
        &self.vm
    }

    pub(crate) fn kind(&self) -> UnitKind {
        self.kind
    }

    /// The name by which it is shown and selected within the VM; that of a GPU is "gpu".
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    /// The name within the VM, as in the name of the unit; none for a GPU.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name of one of its units.
    pub(crate) fn unit(&self, unit_type: UnitType) -> String {
        let suffix = unit_type.suffix();
        format!("{}@{}.{suffix}", self.kind.template(), self.specifier())
    }
}

/// The name of a unit of ours, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitName {
    pub instance: Instance,
    pub unit_type: UnitType,
}

impl UnitName {
    /// Reads a name; `None` if it is none of ours, a template itself included.
    pub(crate) fn parse(unit: &str) -> Option<Self> {
        let (stem, suffix) = unit.rsplit_once('.')?;
        let unit_type = UnitType::ALL
            .into_iter()
            .find(|unit_type| unit_type.suffix() == suffix)?;
        let (template, specifier) = stem.split_once('@')?;
        let kind = UnitKind::ALL
            .into_iter()
            .find(|kind| kind.template() == template)?;
        let (vm, name) = match kind {
            UnitKind::Gpu => (specifier, None),
            // Without a colon somebody started a half-named unit: it is shown as what it is.
            UnitKind::Input | UnitKind::Program => match specifier.split_once(':') {
                Some((vm, name)) => (vm, Some(name)),
                None => (specifier, None),
            },
        };
        (!specifier.is_empty()).then(|| Self {
            instance: Instance {
                vm: vm.to_owned(),
                kind,
                name: name.map(str::to_owned),
            },
            unit_type,
        })
    }
}

impl fmt::Display for Instance {
    /// As the command line names it: `VM:NAME`, and `VM:gpu`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}:{}", self.vm, self.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(unit: &str) -> Option<(UnitKind, String, Option<String>, UnitType)> {
        UnitName::parse(unit).map(|it| {
            (
                it.instance.kind,
                it.instance.vm,
                it.instance.name,
                it.unit_type,
            )
        })
    }

    #[test]
    fn units_are_read() {
        assert_eq!(
            parsed("vhost-user-gpu@vm1.socket"),
            Some((UnitKind::Gpu, "vm1".into(), None, UnitType::Socket))
        );
        assert_eq!(
            parsed("vhost-user-input@vm1:kbd.service"),
            Some((
                UnitKind::Input,
                "vm1".into(),
                Some("kbd".into()),
                UnitType::Service
            ))
        );
        assert_eq!(
            parsed(r"vhost-user-gpu@web.example\x20com.socket"),
            Some((
                UnitKind::Gpu,
                r"web.example\x20com".into(),
                None,
                UnitType::Socket
            ))
        );
        assert_eq!(
            parsed("vhost-user-input@a:b:c@d.socket"),
            Some((
                UnitKind::Input,
                "a".into(),
                Some("b:c@d".into()),
                UnitType::Socket
            ))
        );
        assert_eq!(
            parsed("vhost-user-input@vm1.socket"),
            Some((UnitKind::Input, "vm1".into(), None, UnitType::Socket))
        );
    }

    #[test]
    fn other_units_are_not_ours() {
        for unit in [
            "vhost-user-gpu@.socket",
            "vhost-user-gpu.socket",
            "vhost-user-gpu@vm1.slice",
            "vhost-user-gpu@vm1",
            "vhost-user-blk@vm1.socket",
            "getty@tty1.service",
            "",
        ] {
            assert_eq!(parsed(unit), None, "{unit}");
        }
    }

    #[test]
    fn names_are_checked() {
        for good in ["vm1", "web.example-2", "_", "9"] {
            assert_eq!(check_name(good), Ok(()));
        }
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("-a"), Err(NameError::Dash("-a".into())));
        for dots in [".", ".."] {
            assert_eq!(check_name(dots), Err(NameError::Dots(dots.into())));
        }
        assert_eq!(check_name("..."), Ok(()));
        for (bad, c) in [
            ("my vm", ' '),
            ("a:b", ':'),
            (r"a\x2db", '\\'),
            ("a/b", '/'),
            ("Tänzer", 'ä'),
        ] {
            assert_eq!(check_name(bad), Err(NameError::Character(c, bad.into())));
        }
    }

    #[test]
    fn a_new_instance_fits_its_socket() {
        // "/run/vhost-user/input/" and ":kbd.sock" leave 76 bytes for the VM.
        let longest = "v".repeat(76);
        let instance = Instance::checked(UnitKind::Input, &longest, Some("kbd")).expect("fits");
        assert_eq!(instance.socket().len(), SOCKET_PATH_MAX);
        let error = Instance::checked(UnitKind::Input, &format!("{longest}v"), Some("kbd"));
        assert!(matches!(error, Err(NameError::Length { .. })), "{error:?}");
        let message = error.expect_err("too long").to_string();
        assert!(message.contains("108 bytes"), "{message}");
    }

    #[test]
    fn a_gpu_has_no_name_and_the_others_have() {
        assert_eq!(
            Instance::checked(UnitKind::Gpu, "vm1", Some("a")),
            Err(NameError::Needless)
        );
        assert_eq!(
            Instance::checked(UnitKind::Program, "vm1", None),
            Err(NameError::Empty)
        );
        assert!(Instance::checked(UnitKind::Input, "vm1", Some("gpu")).is_err());
    }

    #[test]
    fn a_unit_is_named_as_it_was_read() {
        for unit in [
            "vhost-user-gpu@vm1.socket",
            "vhost-user-input@vm1:kbd.service",
            r"vhost-user-gpu@a\x2db.service",
        ] {
            let name = UnitName::parse(unit).expect("ours");
            assert_eq!(name.instance.unit(name.unit_type), unit);
        }
    }

    #[test]
    fn a_vm_is_listed_gpu_first() {
        let mut all: Vec<_> = [
            "vhost-user-input@b:kbd.socket",
            "vhost-user-input@a:mouse.socket",
            "vhost-user-gpu@b.socket",
            "vhost-user-input@a:kbd.socket",
            "vhost-user-gpu@a.socket",
        ]
        .iter()
        .filter_map(|unit| UnitName::parse(unit))
        .map(|name| name.instance.unit(name.unit_type))
        .collect();
        all.sort_by_key(|unit| Instance::from_unit(unit));
        assert_eq!(
            all,
            [
                "vhost-user-gpu@a.socket",
                "vhost-user-input@a:kbd.socket",
                "vhost-user-input@a:mouse.socket",
                "vhost-user-gpu@b.socket",
                "vhost-user-input@b:kbd.socket",
            ]
        );
    }

    #[test]
    fn an_instance_is_shown_as_it_is_selected() {
        for (unit, shown) in [
            ("vhost-user-gpu@vm1.socket", "vm1:gpu"),
            ("vhost-user-input@vm1:kbd.socket", "vm1:kbd"),
        ] {
            let instance = Instance::from_unit(unit).expect("ours");
            assert_eq!(instance.to_string(), shown);
        }
    }
}
