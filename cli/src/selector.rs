// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Selecting backends on the command line.

use std::fmt;
use std::str::FromStr;

use glob::Pattern;

use crate::instance::{Instance, UnitKind};

/// A selection of backends: `VM`, `VM:NAME`, `VM:gpu` for the GPU, `VM:vnc` for the VNC server, or the name of a unit.
/// Each part may be a pattern with `*`, `?` and `[...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    text: String,
    meaning: Meaning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// The name of a unit, with its suffix or without.
    Unit(Word),
    /// A VM, and perhaps one of its devices.
    Device { vm: Word, name: Option<Word> },
}

/// A name, or a pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    pattern: Option<Pattern>,
}

/// A pattern is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' has a '[' without a ']'")]
pub(crate) struct PatternError(String);

impl Word {
    fn new(text: &str) -> Result<Self, PatternError> {
        let is_pattern = text.contains(['*', '?', '[']);
        // To the crate, two are a wildcard of its own.
        let mut plain = text.to_owned();
        while plain.contains("**") {
            plain = plain.replace("**", "*");
        }
        let pattern = is_pattern.then(|| Pattern::new(&plain)).transpose();
        Ok(Self {
            text: text.to_owned(),
            pattern: pattern.map_err(|_| PatternError(text.to_owned()))?,
        })
    }

    fn matches(&self, name: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(name),
            None => self.text == name,
        }
    }
}

impl FromStr for Selector {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // The name of a unit contains an "@", which is not allowed in those of VMs and devices.
        let meaning = if text.contains('@') {
            let stem = text
                .strip_suffix(".socket")
                .or_else(|| text.strip_suffix(".service"));
            Meaning::Unit(Word::new(stem.unwrap_or(text))?)
        } else {
            let (vm, name) = match text.split_once(':') {
                Some((vm, name)) => (vm, Some(name)),
                None => (text, None),
            };
            Meaning::Device {
                vm: Word::new(vm)?,
                name: name.map(Word::new).transpose()?,
            }
        };
        let text = text.to_owned();
        Ok(Self { text, meaning })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Selector {
    /// Whether it selects this backend. A VM alone selects all of its backends.
    pub(crate) fn matches(&self, instance: &Instance) -> bool {
        match &self.meaning {
            Meaning::Unit(unit) => stems(instance).iter().any(|stem| unit.matches(stem)),
            Meaning::Device { vm, name } => {
                vm.matches(instance.vm()) && name.iter().all(|name| name.matches(instance.label()))
            }
        }
    }

    /// Whether it selects all backends of a VM, or of VMs.
    pub(crate) fn is_of_vm(&self) -> bool {
        matches!(self.meaning, Meaning::Device { name: None, .. })
    }

    /// The units of these backends in the journal, including removed ones: names, or glob(7) patterns.
    pub(crate) fn units(&self) -> Vec<String> {
        let (vm, name) = match &self.meaning {
            Meaning::Unit(unit) => {
                let stem = in_glob(&unit.text, unit.pattern.is_some());
                return ["socket", "service"]
                    .map(|suffix| format!("{stem}.{suffix}"))
                    .into();
            }
            Meaning::Device { vm, name } => (vm, name),
        };
        let named = name.iter().any(|name| name.pattern.is_some());
        let is_glob = named || vm.pattern.is_some();
        let mut units = Vec::new();
        for kind in UnitKind::ALL {
            let of_each = |instance: &str| {
                let instance = in_glob(instance, is_glob);
                let types = kind.unit_types().iter();
                let units = types.map(|unit_type| {
                    let (template, suffix) = (kind.template_of(*unit_type), unit_type.suffix());
                    format!("{template}@{instance}.{suffix}")
                });
                // What renders for a GPU logs for it.
                let server = (kind == UnitKind::Gpu)
                    .then(|| format!("vhost-render-server@{instance}.service"));
                units.chain(server).collect::<Vec<_>>()
            };
            match (kind.is_named(), name) {
                (false, Some(name)) if !name.matches(kind.name()) => {}
                (false, _) => units.extend(of_each(&vm.text)),
                (true, Some(name)) => units.extend(of_each(&format!("{}:{}", vm.text, name.text))),
                (true, None) => {
                    let vm = in_glob(&vm.text, true);
                    units.extend(templates(kind).map(|template| format!("{template}@{vm}:*")));
                }
            }
        }
        units
    }
}

/// The names of the units of a backend, without the suffix.
fn stems(instance: &Instance) -> Vec<String> {
    templates(instance.kind())
        .map(|template| format!("{template}@{}", instance.specifier()))
        .collect()
}

/// The templates of the units of a kind, each once.
fn templates(kind: UnitKind) -> impl Iterator<Item = &'static str> {
    let mut templates: Vec<_> = kind
        .unit_types()
        .iter()
        .map(|unit_type| kind.template_of(*unit_type))
        .collect();
    templates.sort_unstable_by_key(|template| *template != kind.template());
    templates.dedup();
    templates.into_iter()
}

/// The units of all backends in the journal.
pub(crate) fn every_unit() -> Vec<String> {
    UnitKind::ALL
        .into_iter()
        .flat_map(templates)
        .chain(["vhost-render-server"])
        .map(|template| format!("{template}@*"))
        .collect()
}

/// A part of a name as journalctl(1) takes it: in a glob(7) pattern, `\` is an escape.
fn in_glob(text: &str, is_glob: bool) -> String {
    if is_glob {
        text.replace('\\', r"\\")
    } else {
        text.to_owned()
    }
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
        let selector = text.parse::<Selector>().expect("a selector");
        UNITS
            .into_iter()
            .filter(|unit| selector.matches(&Instance::from_unit(unit).expect("ours")))
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
        // The sockets of the console belong to the device.
        assert_eq!(selected("vhost-user-display@vm1.socket"), UNITS[..1]);
        assert_eq!(selected("vhost-user-events@vm1:kbd"), UNITS[1..2]);
    }

    #[test]
    fn patterns_are_those_of_the_shell() {
        assert_eq!(selected("vm*"), UNITS);
        assert_eq!(selected("vm?"), UNITS[..3]);
        assert_eq!(selected("vm[02-9]"), [""; 0]);
        assert_eq!(selected("*:gpu"), [UNITS[0], UNITS[3]]);
        assert_eq!(selected("vm1:[!g]*"), UNITS[1..3]);
        assert_eq!(selected("vhost-user-gpu@*"), [UNITS[0], UNITS[3]]);
        assert_eq!(selected("vhost-user-input@*:kbd.service"), UNITS[1..2]);
        assert!("vm[".parse::<Selector>().is_err());
        assert_eq!(selected("vm1:***"), UNITS[..3]);
    }

    #[test]
    fn the_journal_is_asked_by_unit() {
        let units = |text: &str| text.parse::<Selector>().expect("a selector").units();
        assert_eq!(
            units("vm1"),
            [
                "vhost-user-gpu@vm1.socket",
                "vhost-user-display@vm1.socket",
                "vhost-user-gpu@vm1.service",
                "vhost-render-server@vm1.service",
                "vhost-user-input@vm1:*",
                "vhost-user-events@vm1:*",
                "vhost-user@vm1:*",
                "vhost-vnc@vm1.socket",
                "vhost-vnc@vm1.service",
            ]
        );
        assert_eq!(
            units("vm1:gpu")[..4],
            [
                "vhost-user-gpu@vm1.socket",
                "vhost-user-display@vm1.socket",
                "vhost-user-gpu@vm1.service",
                "vhost-render-server@vm1.service"
            ]
        );
        let vnc = units("vm1:vnc");
        assert!(vnc.ends_with(&[
            "vhost-vnc@vm1.socket".to_owned(),
            "vhost-vnc@vm1.service".to_owned()
        ]));
        assert_eq!(
            units("vm1:kbd"),
            [
                "vhost-user-input@vm1:kbd.socket",
                "vhost-user-events@vm1:kbd.socket",
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
            units(r"a\x2d")[4],
            r"vhost-user-input@a\\x2d:*",
            "what is meant as it is"
        );
        assert_eq!(units(r"a\x2d:k")[0], r"vhost-user-input@a\x2d:k.socket");
        assert_eq!(
            units("vm*:k?d"),
            [
                "vhost-user-input@vm*:k?d.socket",
                "vhost-user-events@vm*:k?d.socket",
                "vhost-user-input@vm*:k?d.service",
                "vhost-user@vm*:k?d.socket",
                "vhost-user@vm*:k?d.service",
            ]
        );
    }
}
