// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loaded units of backends: systemd's list of them and the D-Bus paths of their objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use zbus::zvariant::OwnedObjectPath;

use super::state::BackendState;
use crate::instance::{Instance, UnitKind, UnitName, UnitType};
use crate::unit_syntax;

/// The LOAD of a unit that has no file.
const NOT_FOUND: &str = "not-found";

/// A unit as `ListUnitsByPatterns` has it: name, description, LOAD, ACTIVE, SUB, what it follows, its object, and
/// the number, type and object of its job.
pub(super) type ListedUnit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// A unit that systemd has in memory.
#[derive(Clone, Debug)]
pub(crate) struct LoadedUnit {
    /// Its state (ACTIVE, in systemctl's words).
    pub active: String,
    /// The same in more detail (SUB).
    pub sub: String,
    pub(super) path: OwnedObjectPath,
}

/// The units of a backend, as far as they are loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedUnits {
    pub socket: Option<LoadedUnit>,
    pub console: Option<LoadedUnit>,
    pub service: Option<LoadedUnit>,
}

impl LoadedUnits {
    /// What socket and service make together.
    pub(crate) fn state(&self) -> BackendState {
        BackendState::new(active(self.socket.as_ref()), active(self.service.as_ref()))
    }

    /// Whether no process of the service can be there.
    pub(crate) fn is_service_inactive(&self) -> bool {
        matches!(active(self.service.as_ref()), "inactive" | "failed")
    }
}

fn active(unit: Option<&LoadedUnit>) -> &str {
    unit.map_or("inactive", |unit| &unit.active)
}

/// The patterns of the names of our units.
pub(super) fn patterns() -> Vec<String> {
    let of_kind = |kind: &UnitKind| {
        let kind = *kind;
        let types = kind.unit_types().iter();
        types.map(move |unit_type| {
            format!("{}@*.{}", kind.template_of(*unit_type), unit_type.suffix())
        })
    };
    UnitKind::ALL.iter().flat_map(of_kind).collect()
}

/// The units of backends among those that systemd lists.
pub(super) fn by_instance(listed: Vec<ListedUnit>) -> BTreeMap<Instance, LoadedUnits> {
    let mut instances = BTreeMap::<_, LoadedUnits>::new();
    for (name, _, load, active, sub, _, path, ..) in listed {
        // Units that others only mention are listed too.
        if load == NOT_FOUND {
            continue;
        }
        let Some(name) = UnitName::parse(&name) else {
            continue;
        };
        let units = instances.entry(name.instance).or_default();
        let unit = Some(LoadedUnit { active, sub, path });
        match name.unit_type {
            UnitType::Socket => units.socket = unit,
            UnitType::Console => units.console = unit,
            UnitType::Service => units.service = unit,
        }
    }
    instances
}

const OBJECTS: &str = "/org/freedesktop/systemd1/unit/";

/// The path of a unit's object, by systemd's rule: any byte but letters and digits, and a digit that comes first, is `_` and its
/// number in hexadecimal.
pub(super) fn object_path(unit: &str) -> String {
    let mut path = OBJECTS.to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || byte.is_ascii_digit() && index > 0 {
            path.push(byte.into());
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// Reads the path of a unit's object; `None` if the unit is none of ours.
pub(super) fn from_object_path(path: &str) -> Option<UnitName> {
    let label = path.strip_prefix(OBJECTS)?;
    UnitName::parse(&unescaped_label(label)?)
}

/// Undoes what [`object_path`] does to a unit's name.
fn unescaped_label(label: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label;
    while let Some((plain, escape)) = rest.split_once('_') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escape.get(..2)?, 16).ok()?);
        rest = escape.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// Undoes the C escapes in the address of a socket.
pub(super) fn unescaped_address(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = unit_syntax::escape(escape).unwrap_or((b'\\', 0));
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_back() {
        assert_eq!(
            unescaped_address("/run/vhost-user/gpu/vm1.sock"),
            "/run/vhost-user/gpu/vm1.sock"
        );
        assert_eq!(
            unescaped_address(r"/run/my\\x20vm.sock"),
            r"/run/my\x20vm.sock"
        );
        assert_eq!(unescaped_address(r"/run/T\303\244st\x41\t"), "/run/TästA\t");
        for broken in [r"a\", r"a\x4", r"a\xzz", r"a\39", r"a\q", r"a\xä"] {
            assert_eq!(unescaped_address(broken), broken);
        }
    }

    #[test]
    fn objects_are_read() {
        let read = |label: &str| {
            from_object_path(&format!("/org/freedesktop/systemd1/unit/{label}"))
                .map(|name| name.instance.unit(name.unit_type))
        };
        let unit = "vhost-user-input@vm1:kbd.service";
        let path = object_path(unit);
        assert_eq!(
            path,
            "/org/freedesktop/systemd1/unit/vhost_2duser_2dinput_40vm1_3akbd_2eservice"
        );
        assert_eq!(
            read("vhost_2duser_2dinput_40vm1_3akbd_2eservice").as_deref(),
            Some(unit)
        );
        for other in ["dbus_2esocket", "vhost_2duser_2dgpu_40vm1_2", "_zz", "_"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
