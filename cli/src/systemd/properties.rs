// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The properties of a unit, as D-Bus has them.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use zbus::zvariant::{OwnedValue, Type};

use super::loaded_units::unescaped_address;

/// The properties that are asked for, sorted. A unit has some 400, and most of the time goes into reading them.
const KEPT: [&str; 36] = [
    "ActiveEnterTimestamp",
    "ActiveExitTimestamp",
    "ActiveState",
    "CPUUsageNSec",
    "CacheDirectory",
    "ControlGroup",
    "Description",
    "DropInPaths",
    "Environment",
    "EnvironmentFiles",
    "ExecMainCode",
    "ExecMainExitTimestamp",
    "ExecMainStartTimestamp",
    "ExecMainStatus",
    "ExecStart",
    "FragmentPath",
    "InactiveEnterTimestamp",
    "InactiveExitTimestamp",
    "Listen",
    "LoadError",
    "LoadState",
    "MainPID",
    "MemoryCurrent",
    "NFileDescriptorStore",
    "NRestarts",
    "PrivateNetwork",
    "Result",
    "SocketGroup",
    "SocketMode",
    "SocketUser",
    "StateDirectory",
    "StatusText",
    "SubState",
    "TasksCurrent",
    "TasksMax",
    "UnitFileState",
];

/// A unit's properties, of those that are asked for.
#[derive(Default, Type)]
#[zvariant(signature = "a{sv}")]
pub(crate) struct Properties(HashMap<String, OwnedValue>);

impl Properties {
    pub(super) fn new(values: HashMap<String, OwnedValue>) -> Self {
        Self(values)
    }

    pub(crate) fn get<T: TryFrom<OwnedValue>>(&self, name: &str) -> Option<T> {
        debug_assert!(KEPT.binary_search(&name).is_ok(), "{name} is not kept");
        T::try_from(self.0.get(name)?.try_clone().ok()?).ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get::<String>(name).filter(|text| !text.is_empty())
    }

    /// A number, for which all ones stand for none.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).filter(|number| *number != u64::MAX)
    }

    /// A time in microseconds since 1970, for which 0 stands for never.
    pub(crate) fn time(&self, name: &str) -> Option<Timestamp> {
        let time = self.number(name).filter(|time| *time != 0)?;
        Timestamp::from_microsecond(i64::try_from(time).ok()?).ok()
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default()
    }

    /// The paths on which a socket listens, in the order of its settings.
    pub(crate) fn listen(&self) -> Vec<String> {
        let listen: Vec<(String, String)> = self.get("Listen").unwrap_or_default();
        listen
            .into_iter()
            .filter(|(kind, _)| kind == "Stream")
            .map(|(_, path)| unescaped_address(&path))
            .collect()
    }

    /// When it came into its state, as systemctl reads it.
    pub(crate) fn since(&self, state: &str) -> Option<Timestamp> {
        self.time(match state {
            "active" | "reloading" | "refreshing" => "ActiveEnterTimestamp",
            "activating" => "InactiveExitTimestamp",
            "deactivating" => "ActiveExitTimestamp",
            _ => "InactiveEnterTimestamp",
        })
    }

    pub(crate) fn load_error(&self) -> Option<String> {
        let (_, message) = self.get::<(String, String)>("LoadError")?;
        (!message.is_empty()).then_some(message)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Kept)
    }
}

/// Reads a dictionary and keeps what is asked for.
struct Kept;

impl<'de> Visitor<'de> for Kept {
    type Value = Properties;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the properties of a unit")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Properties, A::Error> {
        let mut kept = HashMap::new();
        while let Some(name) = all.next_key::<&str>()? {
            if KEPT.binary_search(&name).is_ok() {
                kept.insert(name.to_owned(), all.next_value()?);
            } else {
                all.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Properties(kept))
    }
}

#[cfg(test)]
mod tests {
    use zbus::zvariant::serialized::Context;
    use zbus::zvariant::{LE, Value};

    use super::*;

    fn properties<const N: usize>(list: [(&str, Value<'static>); N]) -> Properties {
        Properties(
            list.into_iter()
                .map(|(name, value)| {
                    let value = OwnedValue::try_from(value).expect("a value");
                    (name.to_owned(), value)
                })
                .collect(),
        )
    }

    #[test]
    fn placeholder_values_are_none() {
        let unit = properties([
            ("MemoryCurrent", u64::MAX.into()),
            ("TasksCurrent", 3_u64.into()),
            ("ActiveEnterTimestamp", 0_u64.into()),
            ("StatusText", "".into()),
            ("LoadError", ("", "").into()),
            ("DropInPaths", vec!["/etc/a.conf", "/run/b.conf"].into()),
        ]);
        assert_eq!(unit.number("MemoryCurrent"), None);
        assert_eq!(unit.number("TasksCurrent"), Some(3));
        assert_eq!(unit.time("ActiveEnterTimestamp"), None);
        assert_eq!(unit.text("StatusText"), None);
        assert_eq!(unit.load_error(), None);
        assert_eq!(unit.list("DropInPaths"), ["/etc/a.conf", "/run/b.conf"]);
        assert_eq!(unit.list("Environment"), [""; 0]);
        let broken = properties([("LoadError", ("org.example", "no such file").into())]);
        assert_eq!(broken.load_error().as_deref(), Some("no such file"));
    }

    #[test]
    fn others_are_skipped_whatever_they_are() {
        assert!(KEPT.is_sorted());
        let structure = Value::from((vec![(1_u8, "a")], 2_u64, vec![Value::from(3_i16)]));
        let all = HashMap::from([
            ("ActiveState", Value::from("active")),
            ("Listen", vec![("Stream", "/run/a.sock")].into()),
            ("CapabilityBoundingSet", 7_u64.into()),
            ("SystemCallFilter", (true, vec!["read", "write"]).into()),
            ("StartLimitBurst", 1_u32.into()),
            ("Structure", structure),
        ]);
        let context = Context::new_dbus(LE, 0);
        let bytes = zbus::zvariant::to_bytes(context, &all).expect("values");
        let (unit, _): (Properties, _) = bytes.deserialize().expect("properties");
        assert_eq!(unit.text("ActiveState").as_deref(), Some("active"));
        assert_eq!(unit.listen(), ["/run/a.sock"]);
        assert_eq!(unit.0.len(), 2);
    }

    #[test]
    fn a_state_has_its_own_time() {
        let unit = properties([
            ("ActiveEnterTimestamp", 1_u64.into()),
            ("ActiveExitTimestamp", 2_u64.into()),
            ("InactiveEnterTimestamp", 3_u64.into()),
            ("InactiveExitTimestamp", 4_u64.into()),
        ]);
        for (state, time) in [
            ("active", 1),
            ("deactivating", 2),
            ("inactive", 3),
            ("failed", 3),
            ("activating", 4),
        ] {
            let since = unit.since(state).map(Timestamp::as_microsecond);
            assert_eq!(since, Some(time), "{state}");
        }
    }
}
