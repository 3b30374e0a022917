// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names: which unit is which device of which VM.
//!
//! A GPU is `vhost-user-gpu@VM`, an input device `vhost-user-input@VM:NAME`, a VNC server `vhost-vnc@VM`, any other
//! backend `vhost-user@VM:NAME`. The instance is taken as it is written in the name of the unit, escapes
//! included, so that a name that is shown can be used anywhere. New instances have plain names.

use std::fmt;

use clap::ValueEnum;
use conventions::{SOCKET_FOLDER, SOCKET_PATH_MAX};

/// The folder of the sockets by which VNC servers use devices (`ListenStream=`).
const CONSOLE_FOLDER: &str = "/run/vhost-user-console";

/// A kind of unit: one for GPUs, one for input devices, one for all other types of device, and one for the VNC server
/// that shows a VM's screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum UnitKind {
    Gpu,
    Input,
    /// Any installed program, for a device of any type.
    #[value(skip)]
    Program,
    /// Not a device: its clients are viewers.
    #[value(skip)]
    Vnc,
}

impl UnitKind {
    /// All kinds.
    pub(crate) const ALL: [UnitKind; 4] = [
        UnitKind::Gpu,
        UnitKind::Input,
        UnitKind::Program,
        UnitKind::Vnc,
    ];

    /// The template's name without its suffix, such as `vhost-user-gpu`.
    pub(crate) fn template(self) -> &'static str {
        match self {
            UnitKind::Gpu => "vhost-user-gpu",
            UnitKind::Input => "vhost-user-input",
            UnitKind::Program => "vhost-user",
            UnitKind::Vnc => "vhost-vnc",
        }
    }

    /// The same of the template of one of its units.
    pub(crate) fn template_of(self, unit_type: UnitType) -> &'static str {
        match (self, unit_type) {
            (UnitKind::Gpu, UnitType::Console) => "vhost-user-display",
            (UnitKind::Input, UnitType::Console) => "vhost-user-events",
            _ => self.template(),
        }
    }

    /// The types of its units.
    pub(crate) fn unit_types(self) -> &'static [UnitType] {
        match self {
            UnitKind::Gpu | UnitKind::Input => {
                &[UnitType::Socket, UnitType::Console, UnitType::Service]
            }
            UnitKind::Program | UnitKind::Vnc => &[UnitType::Socket, UnitType::Service],
        }
    }

    /// The package with its units.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Gpu => "vhost-user-gpu",
            Self::Input => "vhost-user-input",
            Self::Program => "vhostctl",
            Self::Vnc => "vhost-vnc",
        }
    }

    /// Whether a VM can have several, each with a name.
    pub(crate) fn is_named(self) -> bool {
        match self {
            UnitKind::Gpu | UnitKind::Vnc => false,
            UnitKind::Input | UnitKind::Program => true,
        }
    }

    /// Its name, which is also the name of the folder of its sockets, and the type of its backends where nothing else tells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            UnitKind::Gpu => "gpu",
            UnitKind::Input => "input",
            UnitKind::Program => "backend",
            UnitKind::Vnc => "vnc",
        }
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One of the units that a backend consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitType {
    /// The socket for the VMM; of a VNC server, that for viewers.
    Socket,
    /// The second socket of a GPU or an input device, by which the VM's VNC server uses it.
    Console,
    Service,
}

impl UnitType {
    /// The suffix of the unit's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Socket | Self::Console => "socket",
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
    #[error("'{name}' is reserved: '{vm}:{name}' is {what} of the VM. Use another name")]
    Reserved {
        name: String,
        vm: String,
        what: &'static str,
    },
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

/// The identity of a backend: its kind, its VM and, unless a VM has only one of this kind, its name within the VM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    // In this order an instance sorts by VM, a VM's GPU comes first, and its VNC server last.
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
            if !kind.is_named() {
                return Err(NameError::Needless);
            }
            let reserved = [
                (UnitKind::Gpu, "the GPU"),
                (UnitKind::Vnc, "the VNC server"),
            ];
            if let Some((_, what)) = reserved.iter().find(|(kind, _)| kind.name() == name) {
                return Err(NameError::Reserved {
                    name: name.to_owned(),
                    vm: vm.to_owned(),
                    what,
                });
            }
        } else if kind.is_named() {
            return Err(NameError::Empty);
        }
        let instance = Self {
            vm: vm.to_owned(),
            kind,
            name: name.map(str::to_owned),
        };
        instance.check_path(instance.socket())?;
        Ok(instance)
    }

    /// Checks that the path of its socket for a console is short enough, which is longer than that of the other one.
    pub(crate) fn check_console(&self) -> Result<(), NameError> {
        let file = match self.kind {
            UnitKind::Gpu => "display",
            UnitKind::Input | UnitKind::Program | UnitKind::Vnc => "events",
        };
        let vm = self.specifier();
        self.check_path(format!("{CONSOLE_FOLDER}/{vm}/{file}.sock"))
    }

    fn check_path(&self, path: String) -> Result<(), NameError> {
        if path.len() > SOCKET_PATH_MAX {
            let name = self.specifier();
            return Err(NameError::Length { name, path });
        }
        Ok(())
    }

    /// The path of the socket of a further head of a VNC server, from 1.
    pub(crate) fn socket_of_head(&self, head: usize) -> Result<String, NameError> {
        let path = format!(
            "{SOCKET_FOLDER}/{}/{}:{head}.sock",
            self.kind.name(),
            self.specifier()
        );
        self.check_path(path.clone())?;
        Ok(path)
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

    /// The name by which it is shown and selected within the VM; that of a GPU is "gpu", that of a VNC server "vnc".
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    /// The name within the VM, as in the name of the unit; none for a GPU and a VNC server.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name of one of its units, of a type that its kind has.
    pub(crate) fn unit(&self, unit_type: UnitType) -> String {
        let (template, suffix) = (self.kind.template_of(unit_type), unit_type.suffix());
        format!("{template}@{}.{suffix}", self.specifier())
    }

    /// The service beside a GPU with Vulkan, which renders for it.
    pub(crate) fn render_server(&self) -> String {
        format!("vhost-render-server@{}.service", self.specifier())
    }

    /// The socket by which a GPU with Vulkan uses it.
    pub(crate) fn render_server_socket(&self) -> String {
        format!("vhost-render-server@{}.socket", self.specifier())
    }

    /// The names of all units that it may have.
    pub(crate) fn units(&self) -> Vec<String> {
        let types = self.kind.unit_types().iter();
        types.map(|unit_type| self.unit(*unit_type)).collect()
    }

    /// Whether its VMM has it as a device.
    pub(crate) fn is_device(&self) -> bool {
        self.kind != UnitKind::Vnc
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
        let (template, specifier) = stem.split_once('@')?;
        let (kind, unit_type) = UnitKind::ALL.into_iter().find_map(|kind| {
            let mut types = kind.unit_types().iter();
            let unit_type = types.find(|unit_type| {
                unit_type.suffix() == suffix && kind.template_of(**unit_type) == template
            })?;
            Some((kind, *unit_type))
        })?;
        let (vm, name) = match specifier.split_once(':').filter(|_| kind.is_named()) {
            Some((vm, name)) => (vm, Some(name)),
            // Without a colon somebody started a half-named unit: it is shown as what it is.
            None => (specifier, None),
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
    /// As the command line names it: `VM:NAME`, `VM:gpu` and `VM:vnc`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}:{}", self.vm, self.label()))
    }
}

#[cfg(test)]
mod tests;
