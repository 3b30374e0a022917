//! `vhostctl add input`.

use crate::devices::{InputDevice, InputKind};
use crate::holders::NO_GRAB;
use crate::instance::{Instance, Kind};
use crate::output::printable;
use crate::settings::Settings;

use super::super::Error as VerbError;
use super::{Args, Error, Host, Plan, free_name, only_for};

pub(super) fn plan(args: &Args, host: &Host) -> Result<Plan, VerbError> {
    only_for(
        "an input device",
        &[
            ("--render-node", args.render_node.is_some()),
            ("--virgl", args.virgl),
            ("--max-hostmem", args.max_hostmem.is_some()),
        ],
    )?;
    let Some(wanted) = &args.device else {
        let text = "Which input device? 'vhostctl list-devices --type=input' shows all there are.";
        return Err(Error::Usage(text.to_owned()).into());
    };
    let all = host.devices.inputs()?;
    let device = find(&all, wanted)?;
    let instance = instance(args, host, device)?;
    let mut hints = Vec::new();
    if device.stable() == device.node {
        hints.push(format!(
            "{} has no stable name: it can be another device after the next boot.",
            device.node
        ));
    }
    if !args.force {
        if let Some(holder) = host.holders.other(device, &instance) {
            return Err(Error::Held {
                device: device.stable().to_owned(),
                holder: holder.to_string(),
            }
            .into());
        }
        if !args.no_grab && host.holders.takes_last_keyboard(device, &all) {
            return Err(Error::LastKeyboard {
                device: device.stable().to_owned(),
                vm: args.vm.clone(),
            }
            .into());
        }
    }
    let settings = Settings {
        device: Some(device.stable().to_owned()),
        options: args
            .no_grab
            .then(|| NO_GRAB.to_owned())
            .into_iter()
            .collect(),
        ..Settings::default()
    };
    Ok(Plan {
        instance,
        settings,
        access: None,
        hints,
    })
}

/// The one device that is meant.
fn find<'a>(all: &'a [InputDevice], wanted: &str) -> Result<&'a InputDevice, Error> {
    let by_name = |device: &&InputDevice| {
        let mut links = device.links.iter();
        links.any(|link| link.rsplit('/').next() == Some(wanted))
    };
    let exact = all
        .iter()
        .find(|device| device.is_at(wanted))
        .or_else(|| all.iter().find(by_name));
    if let Some(device) = exact {
        return Ok(device);
    }
    let like: Vec<_> = all
        .iter()
        .filter(|device| !wanted.is_empty() && !wanted.starts_with('/') && device.is_like(wanted))
        .collect();
    match like.as_slice() {
        [device] => Ok(device),
        [] => Err(Error::NoDevice {
            text: wanted.to_owned(),
            kind: "input",
        }),
        _ => Err(Error::Ambiguous {
            text: wanted.to_owned(),
            candidates: like.iter().map(|device| described(device)).collect(),
        }),
    }
}

fn described(device: &InputDevice) -> String {
    let kinds: Vec<_> = device.kinds.iter().map(ToString::to_string).collect();
    let name = device.name.as_deref().unwrap_or("no name");
    let text = format!("  {} ({}, {name})", device.stable(), kinds.join(","));
    // A line each.
    printable(&text).into_owned()
}

/// Under which name the VM gets it.
fn instance(args: &Args, host: &Host, device: &InputDevice) -> Result<Instance, Error> {
    if let Some(name) = &args.name {
        return Ok(Instance::checked(Kind::Input, &args.vm, Some(name))?);
    }
    // To add a device twice is to add it once.
    let same = host.holders.instances().find(|instance| {
        instance.vm() == args.vm && host.holders.has(instance, |path| device.is_at(path))
    });
    if let Some(instance) = same {
        return Ok(instance.clone());
    }
    let word = device.kinds.first().map_or("input", |kind| word(*kind));
    let name = free_name(word, &args.vm, &host.holders);
    Ok(Instance::checked(Kind::Input, &args.vm, Some(&name))?)
}

fn word(kind: InputKind) -> &'static str {
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

    fn device(number: u32, name: &str, link: &str) -> InputDevice {
        InputDevice {
            node: format!("/dev/input/event{number}"),
            by_id: Some(format!("/dev/input/by-id/{link}")),
            by_path: None,
            name: Some(name.to_owned()),
            kinds: vec![InputKind::Keyboard],
            bus: None,
            vendor_id: None,
            product_id: None,
            seat: "seat0".to_owned(),
            links: vec![
                format!("/dev/input/by-id/{link}"),
                format!("/dev/input/by-path/p{number}"),
            ],
            number: None,
        }
    }

    #[test]
    fn a_device_is_found_by_node_by_link_and_by_a_unique_part() {
        let all = [
            device(1, "Acme Keyboard", "usb-Acme_Keyboard-event-kbd"),
            device(10, "Acme Keyboard Pro", "usb-Acme_Keyboard_Pro-event-kbd"),
        ];
        let found = |text: &str| find(&all, text).map(|device| device.node.as_str());
        for text in [
            "/dev/input/event1",
            "/dev/input/by-path/p1",
            "p1",
            "usb-Acme_Keyboard-event-kbd",
            "board-EVENT",
        ] {
            assert!(matches!(found(text), Ok("/dev/input/event1")), "{text}");
        }
        assert!(matches!(found("pro"), Ok("/dev/input/event10")));
        for text in ["acme", "kbd", "keyboard"] {
            let Err(Error::Ambiguous { candidates, .. }) = found(text) else {
                panic!("{text}");
            };
            assert_eq!(candidates.len(), 2);
            assert!(
                candidates[1].contains("by-id/usb-Acme_Keyboard_Pro-event-kbd"),
                "{candidates:?}"
            );
        }
        for text in ["", "mouse", "/dev/input/event", "/dev/input/event2"] {
            assert!(matches!(found(text), Err(Error::NoDevice { .. })), "{text}");
        }
    }
}
