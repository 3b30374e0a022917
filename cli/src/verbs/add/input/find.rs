// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the input device that the command line names.

use conventions::{InputIds, printable};

use crate::devices::{InputDevice, InputKind};
use crate::verbs::error::AddError;

/// The nodes that are to be added.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) nodes: Vec<FoundDevice<'a>>,
    /// Nodes of the same device that are of no use in a guest.
    pub(super) left_out: Vec<&'a InputDevice>,
}

/// The device that the command line names by a text, by numbers, or both; or all nodes of it.
pub(super) fn choose<'a>(
    wanted: Option<&str>,
    ids: Option<&InputIds>,
    all_nodes: bool,
    all: &'a [InputDevice],
) -> Result<Chosen<'a>, AddError> {
    let text = match (wanted, ids) {
        (Some(wanted), None) => wanted.to_owned(),
        (None, Some(ids)) => ids.to_string(),
        (Some(wanted), Some(ids)) => format!("{wanted} with the numbers {ids}"),
        (None, None) => {
            let text = "Which input device? See 'vhostctl list-devices --type=input'.";
            return Err(AddError::Usage(text.to_owned()));
        }
    };
    let mut found = match wanted {
        Some(wanted) => find(all, wanted),
        None => all.iter().map(FoundDevice::unnamed).collect(),
    };
    if let Some(ids) = ids {
        found.retain(|found| found.device.own_ids(ids).is_some());
    }
    let Some(first) = found.first().map(|found| found.device) else {
        return Err(AddError::NoDevice {
            text,
            kind: "input",
        });
    };
    let is_of_it = |device: &InputDevice| device.hardware.is_same(&first.hardware);
    let is_one_thing = found.iter().all(|found| is_of_it(found.device));
    if !(found.len() == 1 || all_nodes && is_one_thing) {
        let candidates = found.iter().map(|found| described(found.device)).collect();
        let note = match is_one_thing {
            true => "\nThey are nodes of one device. To add all of them, use --all-nodes.",
            false => "",
        };
        return Err(AddError::Ambiguous {
            text,
            candidates,
            note,
        });
    }
    if !all_nodes {
        return Ok(Chosen {
            nodes: found,
            left_out: Vec::new(),
        });
    }
    let is_named =
        |device: &InputDevice| wanted.is_some() && found.len() == 1 && device.node == first.node;
    let is_useful = |device: &InputDevice| device.kinds.iter().any(|kind| kind.is_for_guests());
    let nodes = all.iter().filter(|device| is_of_it(device));
    let (mut useful, mut left_out): (Vec<_>, Vec<_>) =
        nodes.partition(|device| is_useful(device) || is_named(device));
    if useful.is_empty() {
        std::mem::swap(&mut useful, &mut left_out);
    }
    useful.sort_by_key(|device| rank(device));
    let nodes = useful.into_iter().map(|device| {
        // With the link that the user chose.
        let at = found
            .iter()
            .position(|found| found.device.node == device.node);
        at.and_then(|at| found.get(at).cloned())
            .unwrap_or_else(|| FoundDevice::unnamed(device))
    });
    Ok(Chosen {
        nodes: nodes.collect(),
        left_out,
    })
}

/// The place of a node among those of its device: the keys that are typed on come first.
fn rank(device: &InputDevice) -> usize {
    let is = |kind: &InputKind| device.kinds.contains(kind);
    match device.kinds.as_slice() {
        _ if is(&InputKind::Keyboard) => 0,
        kinds if kinds.iter().any(|kind| kind.points()) => 1,
        _ => 2,
    }
}

/// The device that the command line names, and the link that the user chose, if it is to be kept.
#[derive(Clone, Debug)]
pub(super) struct FoundDevice<'a> {
    pub(super) device: &'a InputDevice,
    name: Option<String>,
}

impl<'a> FoundDevice<'a> {
    /// A device without a link of the user's choice.
    fn unnamed(device: &'a InputDevice) -> Self {
        Self { device, name: None }
    }

    /// Whether there is a link by which it is to be found.
    pub(super) fn has_link(&self) -> bool {
        self.name.is_some()
    }

    /// Finds it by this link, if that is one which a service can follow.
    pub(super) fn keep_link(&mut self, link: &str) {
        if self.device.names.keeps(link) {
            self.name = Some(link.to_owned());
        }
    }

    /// The name to configure it by.
    pub(super) fn path(&self) -> &str {
        self.name
            .as_deref()
            .unwrap_or_else(|| self.device.preferred_path())
    }

    /// A hint if that name is not stable.
    pub(super) fn hint(&self, all: &[InputDevice]) -> Option<String> {
        let (node, names) = (&self.device.node, &self.device.names);
        let path = self.path();
        if path == node {
            let why = names
                .shared()
                .map(|link| format!(": {}", shared(link, all)));
            let why = why.unwrap_or_default();
            return Some(format!(
                "{node} has no stable name{why}. It may be another device after the next boot."
            ));
        }
        names.shares(path).then(|| {
            let shared = shared(path, all);
            format!("{shared}. It may be another of these devices after the next boot.")
        })
    }
}

/// The devices that share a link.
fn shared(link: &str, all: &[InputDevice]) -> String {
    let claim = all.iter().filter(|device| device.names.claims(link));
    let nodes: Vec<_> = claim.map(|device| device.node.as_str()).collect();
    format!("{link} is a name of {}", nodes.join(" and "))
}

/// The devices that a text on the command line names, or may name.
fn find<'a>(all: &'a [InputDevice], wanted: &str) -> Vec<FoundDevice<'a>> {
    let is_path = ["/", "./", "../"]
        .iter()
        .any(|start| wanted.starts_with(start));
    let path = std::path::absolute(wanted);
    let path = path
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok());
    let named = match path.filter(|_| is_path) {
        Some(path) => at(all, &path),
        None => called(all, wanted),
    };
    if !named.is_empty() || is_path || wanted.is_empty() {
        return named;
    }
    let like = all.iter().filter(|device| device.is_like(wanted));
    like.map(FoundDevice::unnamed).collect()
}

/// The devices that a path may name; only one if it leads to one.
fn at<'a>(all: &'a [InputDevice], path: &str) -> Vec<FoundDevice<'a>> {
    let found = |device: &'a InputDevice| FoundDevice {
        name: device.names.keeps(path).then(|| path.to_owned()),
        device,
    };
    let there = all.iter().find(|device| device.is_at(path));
    match there {
        Some(device) => vec![found(device)],
        None if std::fs::symlink_metadata(path).is_ok() => Vec::new(),
        None => {
            let claim = all.iter().filter(|device| device.names.claims(path));
            claim.map(found).collect()
        }
    }
}

/// The devices that have a link or a name of this text.
fn called<'a>(all: &'a [InputDevice], wanted: &str) -> Vec<FoundDevice<'a>> {
    let by_link = |device: &'a InputDevice| {
        let link = device.names.called(wanted)?;
        let name = Some(link.to_owned());
        Some(FoundDevice { device, name })
    };
    let mut found: Vec<_> = all.iter().filter_map(by_link).collect();
    if found.is_empty() {
        let claims = |device: &&InputDevice| device.names.claims_called(wanted);
        found.extend(all.iter().filter(claims).map(FoundDevice::unnamed));
    }
    if found.is_empty() {
        let is_named = |device: &&InputDevice| device.is_named(wanted);
        found.extend(all.iter().filter(is_named).map(FoundDevice::unnamed));
    }
    found
}

/// A device for a list of candidates, on a line of its own.
pub(super) fn described(device: &InputDevice) -> String {
    let kinds: Vec<_> = device.kinds.iter().map(ToString::to_string).collect();
    let name = device.name.as_deref().unwrap_or("no name");
    let serial = device.serial.as_ref();
    let serial = serial.map(|serial| format!(", serial number {serial}"));
    let text = format!(
        "{} ({}, {name}{})",
        device.preferred_path(),
        kinds.join(","),
        serial.unwrap_or_default()
    );
    // A line each.
    printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::input_device;
    use crate::verbs::add::input::testing::{Node, node};

    fn device(number: u32, name: &str, link: &str) -> InputDevice {
        let (by_id, by_path) = (
            format!("/dev/input/by-id/{link}"),
            format!("/dev/input/by-path/p{number}"),
        );
        InputDevice {
            by_id: Some(by_id.clone()),
            by_path: Some(by_path.clone()),
            name: Some(name.to_owned()),
            kinds: vec![InputKind::Keyboard],
            ..input_device(number, &[&by_id, &by_path])
        }
    }

    fn one<'a>(all: &'a [InputDevice], text: &str) -> Result<FoundDevice<'a>, AddError> {
        let mut nodes = choose(Some(text), None, false, all)?.nodes;
        assert_eq!(nodes.len(), 1);
        Ok(nodes.remove(0))
    }

    /// Two keyboards, and where one is found by a text.
    fn keyboards() -> [InputDevice; 3] {
        [
            device(1, "Acme Keyboard", "usb-Acme_Keyboard-event-kbd"),
            device(10, "Acme Keyboard Pro", "usb-Acme_Keyboard_Pro-event-kbd"),
            device(11, "TPPS/2 \u{1b}Point", "usb-Point-event-mouse"),
        ]
    }

    #[test]
    fn a_device_is_found_by_node_by_link_by_name_and_by_a_unique_part() {
        let all = keyboards();
        let found = |text: &str| one(&all, text).map(|found| found.device.node.as_str());
        for text in [
            "/dev/input/event1",
            "/dev/input/by-path/p1",
            "by-path/p1",
            "p1",
            "usb-Acme_Keyboard-event-kbd",
            "Acme Keyboard",
            "board-EVENT",
        ] {
            assert!(matches!(found(text), Ok("/dev/input/event1")), "{text}");
        }
        assert!(matches!(found("pro"), Ok("/dev/input/event10")));
        // As it is, as it is shown, and a part of either.
        for text in [
            "TPPS/2 \u{1b}Point",
            r"TPPS/2 \x1bPoint",
            "tpps/2",
            r"\x1bpoint",
        ] {
            assert!(matches!(found(text), Ok("/dev/input/event11")), "{text}");
        }
        for (text, count) in [("acme", 2), ("kbd", 2), ("acme keyboard", 2), ("usb", 3)] {
            let Err(AddError::Ambiguous { candidates, .. }) = found(text) else {
                panic!("{text}");
            };
            assert_eq!(candidates.len(), count);
            assert!(
                candidates[1].contains("by-id/usb-Acme_Keyboard_Pro-event-kbd"),
                "{candidates:?}"
            );
        }
        for text in ["", "mouse2", "/dev/input/event", "/dev/input/event2", "/p1"] {
            assert!(
                matches!(found(text), Err(AddError::NoDevice { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn the_name_that_was_chosen_is_kept() {
        let all = keyboards();
        for (text, path) in [
            ("/dev/input/by-path/p1", "/dev/input/by-path/p1"),
            ("p1", "/dev/input/by-path/p1"),
            (
                "/dev/input/event1",
                "/dev/input/by-id/usb-Acme_Keyboard-event-kbd",
            ),
            (
                "Acme Keyboard",
                "/dev/input/by-id/usb-Acme_Keyboard-event-kbd",
            ),
        ] {
            let found = one(&all, text).expect(text);
            assert_eq!(found.path(), path, "{text}");
            assert_eq!(found.hint(&all), None);
        }
    }

    const KEYS: Node = Node {
        name: "Acme Keyboard",
        serial: "",
        port: "1-1:1.0",
        phys: "usb-1/input0",
    };

    /// A keyboard of five nodes, and a twin of it.
    fn composite() -> Vec<InputDevice> {
        use InputKind::{Button, Mouse, Other, Switch};
        let at = |number, name, port, kinds: &[InputKind]| {
            let mut device = node(number, Node { name, port, ..KEYS });
            device.kinds = kinds.to_vec();
            device
        };
        vec![
            at(1, "Acme Keyboard Consumer Control", "1-1:1.1", &[Button]),
            at(2, "Acme Keyboard", "1-1:1.1", &[Switch, Other]),
            at(3, "Acme Keyboard", "1-1:1.0", &[InputKind::Keyboard]),
            at(4, "Acme Keyboard Mouse", "1-1:1.1", &[Mouse]),
            at(5, "Acme Keyboard", "1-2:1.0", &[InputKind::Keyboard]),
        ]
    }

    fn nodes(chosen: &Chosen<'_>) -> Vec<String> {
        let nodes = chosen.nodes.iter();
        nodes.map(|found| found.device.node.clone()).collect()
    }

    #[test]
    fn all_nodes_of_one_device_are_chosen_by_any_of_them() {
        let all = composite();
        let ids = "046d:c31c".parse().expect("numbers");
        for wanted in ["/dev/input/event3", "/dev/input/event1", "Consumer Control"] {
            for ids in [None, Some(&ids)] {
                let chosen = choose(Some(wanted), ids, true, &all).expect(wanted);
                let expected = [3, 4, 1].map(|number| format!("/dev/input/event{number}"));
                assert_eq!(nodes(&chosen), expected, "{wanted}");
                assert_eq!(chosen.left_out.len(), 1);
                assert_eq!(chosen.left_out[0].node, "/dev/input/event2");
            }
        }
        // One that is named is not left out.
        let chosen = choose(Some("/dev/input/event2"), None, true, &all).expect("a device");
        assert_eq!(chosen.nodes.len(), 4);
        // By the numbers there are two, but with one of them unplugged.
        let said = choose(None, Some(&ids), true, &all).expect_err("two devices");
        assert!(
            matches!(said, AddError::Ambiguous { note: "", .. }),
            "{said}"
        );
        let chosen = choose(None, Some(&ids), true, &all[..4]).expect("a device");
        assert_eq!(chosen.nodes.len(), 3);
    }

    #[test]
    fn nodes_that_a_text_does_not_tell_apart_may_all_be_meant() {
        let all = composite();
        let ids = "046d:c31c".parse().expect("numbers");
        let said = choose(None, Some(&ids), false, &all[..4]).expect_err("four nodes");
        assert!(said.to_string().contains("--all-nodes"), "{said}");
        let said = choose(Some("Acme"), None, true, &all).expect_err("two devices");
        assert!(!said.to_string().contains("--all-nodes"), "{said}");
        let other = "046d:c31d".parse().expect("numbers");
        for wanted in [None, Some("Acme")] {
            let said = choose(wanted, Some(&other), true, &all).expect_err("other numbers");
            assert!(matches!(said, AddError::NoDevice { .. }), "{said}");
        }
    }
}
