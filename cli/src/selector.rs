//! Which backends a verb is for: what a user writes for them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::instance::{Half, Instance, Kind};

/// One or more backends of a VM, as `VM`, `VM:NAME`, `VM:gpu` for the one that has no name, or the name of
/// a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    vm: String,
    name: Option<String>,
    /// Only that one, where a unit was named.
    unit: Option<Instance>,
}

impl FromStr for Selector {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let unit = [text.to_owned(), format!("{text}.socket")]
            .iter()
            .find_map(|unit| Instance::from_unit(unit))
            .map(|(instance, _)| instance);
        let (vm, name) = match text.split_once(':') {
            Some((vm, name)) => (vm, Some(name)),
            None => (text, None),
        };
        Ok(Self {
            text: text.to_owned(),
            vm: vm.to_owned(),
            name: name.map(str::to_owned),
            unit,
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Selector {
    /// Whether it means this backend. A VM alone means all of its backends.
    pub fn matches(&self, instance: &Instance) -> bool {
        match &self.unit {
            Some(unit) => instance == unit,
            None => {
                instance.vm() == self.vm
                    && self.name.as_deref().is_none_or(|name| {
                        name == instance.name().unwrap_or(instance.kind().name())
                    })
            }
        }
    }

    /// The units that the journal has them as, also those that are no more: names, and glob(7) patterns
    /// where any name is meant.
    pub fn units(&self) -> Vec<String> {
        if let Some(instance) = &self.unit {
            return both_units(instance).into();
        }
        Kind::ALL
            .into_iter()
            .flat_map(|kind| match (kind.is_named(), &self.name) {
                (false, Some(name)) if name != kind.name() => Vec::new(),
                (false, _) => both_units(&Instance::new(kind, &self.vm, None)).into(),
                (true, Some(name)) => both_units(&Instance::new(kind, &self.vm, Some(name))).into(),
                (true, None) => vec![format!("{}@{}:*", kind.template(), escaped(&self.vm))],
            })
            .collect()
    }
}

/// The names under which the journal has what any backend said.
pub fn every_unit() -> Vec<String> {
    Kind::ALL
        .iter()
        .map(|kind| format!("{}@*", kind.template()))
        .collect()
}

/// The two units of a backend.
pub fn both_units(instance: &Instance) -> [String; 2] {
    [Half::Socket, Half::Service].map(|half| instance.unit(half))
}

/// A text that stands for itself where glob(7) patterns are read.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '?' | '[') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: [&str; 4] = [
        "vhost-user-gpu@vm1.socket",
        "vhost-user-input@vm1:kbd.socket",
        "vhost-user-input@vm1:mouse.socket",
        "vhost-user-gpu@vm10.socket",
    ];

    fn selected(text: &str) -> Vec<&'static str> {
        let Ok(selector) = text.parse::<Selector>();
        UNITS
            .into_iter()
            .filter(|unit| selector.matches(&Instance::from_unit(unit).expect("ours").0))
            .collect()
    }

    #[test]
    fn a_vm_is_all_of_its_backends() {
        assert_eq!(selected("vm1"), UNITS[..3]);
        assert_eq!(selected("vm10"), UNITS[3..]);
        assert!(selected("vm").is_empty());
        assert!(selected("").is_empty());
    }

    #[test]
    fn a_name_is_one_of_them() {
        assert_eq!(selected("vm1:kbd"), UNITS[1..2]);
        assert_eq!(selected("vm1:gpu"), UNITS[..1]);
        assert!(selected("vm1:").is_empty());
        assert!(selected("vm10:kbd").is_empty());
    }

    #[test]
    fn a_unit_is_one_backend_with_either_suffix_and_without() {
        assert_eq!(selected("vhost-user-gpu@vm1.service"), UNITS[..1]);
        assert_eq!(selected("vhost-user-gpu@vm1.socket"), UNITS[..1]);
        assert_eq!(selected("vhost-user-gpu@vm1"), UNITS[..1]);
        assert_eq!(selected("vhost-user-input@vm1:kbd"), UNITS[1..2]);
    }

    #[test]
    fn the_journal_is_asked_by_unit() {
        let units = |text: &str| {
            let Ok(selector) = text.parse::<Selector>();
            selector.units()
        };
        assert_eq!(
            units("vm1"),
            [
                "vhost-user-gpu@vm1.socket",
                "vhost-user-gpu@vm1.service",
                "vhost-user-input@vm1:*",
                "vhost-user@vm1:*",
            ]
        );
        assert_eq!(
            units("vm1:gpu")[..2],
            ["vhost-user-gpu@vm1.socket", "vhost-user-gpu@vm1.service"]
        );
        assert_eq!(
            units("vm1:kbd"),
            [
                "vhost-user-input@vm1:kbd.socket",
                "vhost-user-input@vm1:kbd.service",
                "vhost-user@vm1:kbd.socket",
                "vhost-user@vm1:kbd.service",
            ]
        );
        assert_eq!(
            units("vhost-user-gpu@vm1"),
            ["vhost-user-gpu@vm1.socket", "vhost-user-gpu@vm1.service"]
        );
        assert_eq!(
            units(r"a\x2d*")[2],
            r"vhost-user-input@a\\x2d\*:*",
            "what is meant as it is"
        );
    }
}
