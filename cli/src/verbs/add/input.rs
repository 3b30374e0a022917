//! `vhostctl add input`.

use conventions::printable;

use crate::devices::{InputDevice, InputKind};
use crate::instance::{Instance, UnitKind};
use crate::settings::{InputOptions, ProgramOptions, Settings, VirtualKind};
use crate::verbs::error::{AddError, Error};

use super::args::Args;
use super::plan::{HostInventory, Plan, free_name, reject_options};

pub(super) fn plan(args: &Args, host: &HostInventory) -> Result<Plan, Error> {
    reject_options(
        "an input device",
        &[
            &[
                ("--render-node", args.render_node.is_some()),
                ("--virgl", args.virgl),
                ("--max-hostmem", args.max_hostmem.is_some()),
            ][..],
            &args.screen_options(),
            &args.console_options(),
        ]
        .concat(),
    )?;
    if let Some(kind) = args.virtual_kind {
        reject_options(
            "a virtual input device",
            &[
                ("DEVICE", args.device.is_some()),
                ("--no-grab", args.no_grab),
            ],
        )?;
        return Ok(virtual_device(args, args.name.as_deref(), kind)?);
    }
    let Some(wanted) = &args.device else {
        let text = "Which input device? See 'vhostctl list-devices --type=input'.";
        return Err(AddError::Usage(text.to_owned()).into());
    };
    let all = host.devices.inputs()?;
    let mut found = find(&all, wanted)?;
    let device = found.device;
    let instance = instance(args, host, device)?;
    // A device that is added again keeps the link that it was added by.
    let before = host.assignments.path(&instance);
    let before = before.filter(|path| device.is_at(path) && device.names.keeps(path));
    found.name = found.name.or(before.map(str::to_owned));
    if !args.force {
        if let Some(owner) = host.assignments.other_holder(device, &instance) {
            return Err(AddError::Assigned {
                device: found.path().to_owned(),
                owner: owner.to_string(),
            }
            .into());
        }
        if !args.no_grab && host.assignments.takes_last_keyboard(device, &all) {
            return Err(AddError::LastKeyboard {
                device: found.path().to_owned(),
                vm: args.vm.clone(),
            }
            .into());
        }
    }
    let options = InputOptions {
        evdev_path: Some(found.path().to_owned()),
        no_grab: args.no_grab,
        ..InputOptions::default()
    };
    let settings = Settings {
        options: ProgramOptions::Input(options),
        ..Settings::default()
    };
    let hints = found.hint(&all).into_iter().collect();
    Ok(Plan::new(instance, settings, hints))
}

/// A device without hardware, by default with the name by which a console looks for it.
pub(super) fn virtual_device(
    args: &Args,
    name: Option<&str>,
    kind: VirtualKind,
) -> Result<Plan, AddError> {
    let name = name.unwrap_or_else(|| kind.name());
    let instance = Instance::checked(UnitKind::Input, &args.vm, Some(name))?;
    instance.check_console()?;
    let options = InputOptions {
        virtual_kind: Some(kind),
        ..InputOptions::default()
    };
    let settings = Settings {
        options: ProgramOptions::Input(options),
        ..Settings::default()
    };
    Ok(Plan::new(instance, settings, Vec::new()).with_console())
}

/// The device that the command line names, and the link that the user chose, if it is to be kept.
#[derive(Debug)]
struct FoundDevice<'a> {
    device: &'a InputDevice,
    name: Option<String>,
}

impl FoundDevice<'_> {
    /// The name to configure it by.
    fn path(&self) -> &str {
        self.name
            .as_deref()
            .unwrap_or_else(|| self.device.preferred_path())
    }

    /// A hint if that name is not stable.
    fn hint(&self, all: &[InputDevice]) -> Option<String> {
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

/// The one device that a text on the command line names.
fn find<'a>(all: &'a [InputDevice], wanted: &str) -> Result<FoundDevice<'a>, AddError> {
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
    if let [device, ..] = named.as_slice() {
        if named.len() == 1 {
            let FoundDevice { device, name } = device;
            let name = name.clone();
            return Ok(FoundDevice { device, name });
        }
        return Err(ambiguous(wanted, named.iter().map(|found| found.device)));
    }
    let like = |device: &&InputDevice| !is_path && !wanted.is_empty() && device.is_like(wanted);
    let like: Vec<_> = all.iter().filter(like).collect();
    match like.as_slice() {
        [device] => Ok(FoundDevice { device, name: None }),
        [] => Err(AddError::NoDevice {
            text: wanted.to_owned(),
            kind: "input",
        }),
        _ => Err(ambiguous(wanted, like.into_iter())),
    }
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
    let unnamed = |device| FoundDevice { device, name: None };
    let mut found: Vec<_> = all.iter().filter_map(by_link).collect();
    if found.is_empty() {
        let claims = |device: &&InputDevice| device.names.claims_called(wanted);
        found.extend(all.iter().filter(claims).map(unnamed));
    }
    if found.is_empty() {
        let is_named = |device: &&InputDevice| device.is_named(wanted);
        found.extend(all.iter().filter(is_named).map(unnamed));
    }
    found
}

fn ambiguous<'a>(wanted: &str, devices: impl Iterator<Item = &'a InputDevice>) -> AddError {
    AddError::Ambiguous {
        text: wanted.to_owned(),
        candidates: devices.map(described).collect(),
    }
}

fn described(device: &InputDevice) -> String {
    let kinds: Vec<_> = device.kinds.iter().map(ToString::to_string).collect();
    let name = device.name.as_deref().unwrap_or("no name");
    let text = format!(
        "  {} ({}, {name})",
        device.preferred_path(),
        kinds.join(",")
    );
    // A line each.
    printable(&text).into_owned()
}

/// The instance for the device.
fn instance(args: &Args, host: &HostInventory, device: &InputDevice) -> Result<Instance, AddError> {
    if let Some(name) = &args.name {
        return Ok(Instance::checked(UnitKind::Input, &args.vm, Some(name))?);
    }
    // A device that is added twice keeps its instance.
    let same = host.assignments.instances().find(|instance| {
        let path = host.assignments.path(instance);
        instance.vm() == args.vm && path.is_some_and(|path| device.is_at(path))
    });
    if let Some(instance) = same {
        return Ok(instance.clone());
    }
    let default = device
        .kinds
        .first()
        .map_or("input", |kind| default_name(*kind));
    let name = free_name(default, &args.vm, &host.assignments);
    Ok(Instance::checked(UnitKind::Input, &args.vm, Some(&name))?)
}

/// What a VM calls a device of this kind.
fn default_name(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Keyboard => "kbd",
        InputKind::Mouse | InputKind::Trackball | InputKind::PointingStick => "mouse",
        InputKind::Touchpad => "touchpad",
        InputKind::Touchscreen => "touch",
        InputKind::Tablet | InputKind::TabletPad => "tablet",
        InputKind::Joystick => "joystick",
        InputKind::Button | InputKind::Switch | InputKind::Accelerometer | InputKind::Other => {
            "input"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Hardware, Names};

    fn device(number: u32, name: &str, link: &str) -> InputDevice {
        let node = format!("/dev/input/event{number}");
        let (by_id, by_path) = (
            format!("/dev/input/by-id/{link}"),
            format!("/dev/input/by-path/p{number}"),
        );
        InputDevice {
            names: Names::new(&node, &[&by_id, &by_path]),
            node,
            by_id: Some(by_id),
            by_path: Some(by_path),
            name: Some(name.to_owned()),
            kinds: vec![InputKind::Keyboard],
            bus: None,
            vendor_id: None,
            product_id: None,
            seat: "seat0".to_owned(),
            hardware: Hardware::default(),
        }
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
        let found = |text: &str| find(&all, text).map(|found| found.device.node.as_str());
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
            let found = find(&all, text).expect(text);
            assert_eq!(found.path(), path, "{text}");
            assert_eq!(found.hint(&all), None);
        }
    }
}
