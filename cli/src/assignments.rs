// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which device of the host is assigned to which backend.

use std::collections::BTreeMap;

use crate::devices::{InputDevice, InputKind, RenderNode};
use crate::instance::{Instance, UnitKind};
use crate::settings::{DeviceAddress, ProgramOptions, Settings};
use crate::unit_folders::{self, UnitFolders};

/// The configured backends with their settings.
#[derive(Debug)]
pub(crate) struct DeviceAssignments(BTreeMap<Instance, Settings>);

impl DeviceAssignments {
    /// Reads the files of the units.
    pub(crate) fn read(folders: &UnitFolders) -> Self {
        let instances = unit_folders::configured_instances(folders.search());
        let settings = instances.into_iter().map(|instance| {
            let settings = Settings::read(folders, &instance);
            (instance, settings)
        });
        Self(settings.collect())
    }

    /// All configured backends.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.0.keys()
    }

    /// The backends that an input device is assigned to.
    pub(crate) fn input_holders(&self, device: &InputDevice) -> Vec<String> {
        let holding = self.holding_input(device);
        holding.map(|(instance, _)| instance.to_string()).collect()
    }

    /// The backends that a render node is assigned to.
    pub(crate) fn gpu_holders(&self, node: &RenderNode) -> Vec<String> {
        let is_node = |address: &DeviceAddress| match address {
            DeviceAddress::Path(path) => node.is_at(path),
            DeviceAddress::Match(_) => false,
        };
        let holding = self.holding(UnitKind::Gpu, is_node);
        holding.map(|(instance, _)| instance.to_string()).collect()
    }

    /// Which device a backend uses.
    pub(crate) fn address(&self, instance: &Instance) -> Option<DeviceAddress> {
        self.0.get(instance)?.address()
    }

    /// The backend of a VM that an input device is assigned to.
    pub(crate) fn holder_in(&self, vm: &str, device: &InputDevice) -> Option<&Instance> {
        let mut holding = self.holding_input(device).map(|(instance, _)| instance);
        holding.find(|instance| instance.vm() == vm)
    }

    /// Another backend that an input device is assigned to.
    pub(crate) fn other_holder(&self, device: &InputDevice, than: &Instance) -> Option<&Instance> {
        let mut holding = self.holding_input(device).map(|(instance, _)| instance);
        holding.find(|instance| *instance != than)
    }

    /// Whether seat0 has no other keyboard than this device.
    pub(crate) fn takes_last_keyboard(&self, device: &InputDevice, all: &[InputDevice]) -> bool {
        let is_on_seat = |device: &InputDevice| device.seat == "seat0";
        // The host can still use a device that its backend does not grab.
        let is_taken = |device: &InputDevice| {
            self.holding_input(device)
                .any(|(_, settings)| !is_shared(settings))
        };
        // In doubt a device counts as a keyboard that is taken, but not as one that stays.
        let stays = |other: &InputDevice| {
            is_on_seat(other)
                && other.is_plain_keyboard(all)
                && !other.hardware.is_same(&device.hardware)
                && !is_taken(other)
        };
        is_on_seat(device) && device.kinds.contains(&InputKind::Keyboard) && !all.iter().any(stays)
    }

    fn holding_input(&self, device: &InputDevice) -> impl Iterator<Item = (&Instance, &Settings)> {
        self.holding(UnitKind::Input, |address| is_address_of(address, device))
    }

    fn holding(
        &self,
        kind: UnitKind,
        is_it: impl Fn(&DeviceAddress) -> bool,
    ) -> impl Iterator<Item = (&Instance, &Settings)> {
        self.0.iter().filter(move |(instance, settings)| {
            instance.kind() == kind && settings.address().as_ref().is_some_and(&is_it)
        })
    }
}

/// Whether an address leads to an input device.
pub(crate) fn is_address_of(address: &DeviceAddress, device: &InputDevice) -> bool {
    match address {
        DeviceAddress::Path(path) => device.is_at(path),
        DeviceAddress::Match(rule) => device.is_meant_by(rule),
    }
}

/// Whether the host can still use the input device.
fn is_shared(settings: &Settings) -> bool {
    match &settings.options {
        ProgramOptions::Input(options) => options.no_grab,
        ProgramOptions::Gpu(_) | ProgramOptions::Vnc(_) | ProgramOptions::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Hardware;
    use crate::devices::testing::bare_input_device;
    use crate::settings::InputOptions;

    fn keyboard(node: &str, seat: &str) -> InputDevice {
        InputDevice {
            kinds: vec![InputKind::Keyboard],
            seat: seat.to_owned(),
            hardware: Hardware::at(&format!("/sys/devices/platform{node}/input/input1{node}")),
            ..bare_input_device(node, &[&format!("/link{node}")])
        }
    }

    fn assignments(list: &[(&str, &str, bool)]) -> DeviceAssignments {
        let entries = list.iter().map(|(unit, device, no_grab)| {
            let options = InputOptions {
                evdev_path: Some((*device).to_owned()),
                no_grab: *no_grab,
                ..InputOptions::default()
            };
            let settings = Settings {
                options: ProgramOptions::Input(options),
                ..Settings::default()
            };
            (Instance::from_unit(unit).expect("a unit"), settings)
        });
        DeviceAssignments(entries.collect())
    }

    const ONE: &str = "vhost-user-input@vm1:kbd.socket";

    #[test]
    fn a_holder_is_found_by_any_name_of_the_device() {
        let device = keyboard("/e1", "seat0");
        let own = Instance::from_unit("vhost-user-input@vm2:kbd.socket").expect("a unit");
        for path in ["/e1", "/link/e1"] {
            let assignments = assignments(&[(ONE, path, false)]);
            assert_eq!(assignments.input_holders(&device), ["vm1:kbd"]);
            assert!(assignments.other_holder(&device, &own).is_some());
        }
        assert!(
            assignments(&[(ONE, "/e2", false)])
                .other_holder(&device, &own)
                .is_none()
        );
        let same = Instance::from_unit(ONE).expect("a unit");
        assert!(
            assignments(&[(ONE, "/e1", false)])
                .other_holder(&device, &same)
                .is_none()
        );
    }

    #[test]
    fn the_last_keyboard_of_the_seat_is_known() {
        let one = keyboard("/e1", "seat0");
        let two = keyboard("/e2", "seat0");
        let other = keyboard("/e3", "seat1");
        let all = [one.clone(), two, other.clone()];
        assert!(!assignments(&[]).takes_last_keyboard(&one, &all));
        assert!(assignments(&[(ONE, "/e2", false)]).takes_last_keyboard(&one, &all));
        assert!(!assignments(&[(ONE, "/e2", true)]).takes_last_keyboard(&one, &all));
        assert!(!assignments(&[(ONE, "/e2", false)]).takes_last_keyboard(&other, &all));
        let mut mouse = one.clone();
        mouse.kinds = vec![InputKind::Mouse];
        assert!(!assignments(&[]).takes_last_keyboard(&mouse, &[mouse.clone()]));
    }

    #[test]
    fn devices_that_may_not_be_keyboards_do_not_replace_the_last() {
        let usb = |node: &str, place: &str, kinds: &[InputKind]| InputDevice {
            kinds: kinds.to_vec(),
            hardware: Hardware::at(&format!("/sys/devices/usb1/{place}/input/input1{node}")),
            ..keyboard(node, "seat0")
        };
        let real = keyboard("/e1", "seat0");
        let asks = |others: &[InputDevice]| {
            let all = [std::slice::from_ref(&real), others].concat();
            assignments(&[]).takes_last_keyboard(&real, &all)
        };
        use InputKind::{Keyboard, Mouse};
        assert!(!asks(&[usb("/e2", "1-2/1-2:1.0", &[Keyboard])]));
        // A further interface, one that is a mouse as well, and one beside a mouse.
        assert!(asks(&[usb("/e2", "1-2/1-2:1.1", &[Keyboard])]));
        assert!(asks(&[usb("/e2", "1-2/1-2:1.0", &[Keyboard, Mouse])]));
        assert!(asks(&[
            usb("/e2", "1-2/1-2:1.0", &[Keyboard]),
            usb("/e3", "1-2/1-2:1.1", &[Mouse])
        ]));
        // The other half of the keyboard that is taken.
        let halves = ["/e4", "/e5"].map(|node| usb(node, "1-3/1-3:1.0", &[Keyboard]));
        assert!(assignments(&[]).takes_last_keyboard(&halves[0], &halves));
        // What a program plays.
        let mut played = keyboard("/e2", "seat0");
        played.hardware = Hardware::at("/sys/devices/virtual/input/input6/event6");
        assert!(asks(&[played]));
    }
}
