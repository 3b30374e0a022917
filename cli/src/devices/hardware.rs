// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The piece of hardware that an input device is a part of, by its path in /sys: a mouse and a keyboard can be two
//! interfaces of one device.

/// The piece of hardware behind an input device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hardware {
    /// Its path in /sys: that of a USB device, of a device behind a wireless receiver, or of another parent of the
    /// input device.
    place: String,
    /// The number of the USB interface.
    interface: Option<u8>,
    /// A program emulates it (uinput).
    is_virtual: bool,
}

impl Hardware {
    /// The hardware of the input device at this path in /sys. Devices that a program plays are one thing if their
    /// `phys` says so: its interfaces end in "/inputN".
    pub(crate) fn of(syspath: &str, phys: &str) -> Self {
        let hardware = Self::at(syspath);
        match phys.rsplit_once("/input") {
            Some((place, _)) if hardware.is_virtual && !place.is_empty() => Self {
                place: format!("phys {place}"),
                ..hardware
            },
            _ => hardware,
        }
    }

    /// The hardware of the input device at this path in /sys.
    pub(crate) fn at(syspath: &str) -> Self {
        let path = syspath.find("/devices/").and_then(|at| syspath.get(at..));
        let path = path.unwrap_or(syspath);
        let above = path.find("/input/input").and_then(|at| path.get(..at));
        let above = above.unwrap_or(path);
        let parts: Vec<_> = above.split('/').collect();
        let up_to = |count: usize| {
            parts
                .iter()
                .take(count)
                .copied()
                .collect::<Vec<_>>()
                .join("/")
        };
        let is_virtual = above == "/devices/virtual";
        let usb = parts.iter().rposition(|part| usb_interface(part).is_some());
        let Some(at) = usb else {
            let place = if is_virtual { path } else { above };
            return Self {
                place: place.to_owned(),
                interface: None,
                is_virtual,
            };
        };
        // A receiver's driver makes a HID device of each device that is paired with it.
        let hid = parts
            .iter()
            .skip(at.saturating_add(1))
            .filter(|part| is_hid(part));
        let is_paired = hid.count() > 1;
        Self {
            place: if is_paired {
                above.to_owned()
            } else {
                up_to(at)
            },
            interface: parts
                .get(at)
                .and_then(|part| usb_interface(part))
                .filter(|_| !is_paired),
            is_virtual,
        }
    }

    /// Whether both are the same piece of hardware.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.place == other.place
    }

    /// Whether a keyboard there is the main function of the hardware: not emulated, and not a further interface, by
    /// which mice with many buttons send keys.
    pub(crate) fn is_main(&self) -> bool {
        !self.is_virtual && self.interface.unwrap_or(0) == 0
    }
}

/// The number of an interface of a USB device, by its name: "1-2.4:1.0" is BUS-PORTS:CONFIGURATION.INTERFACE.
fn usb_interface(name: &str) -> Option<u8> {
    let (device, interface) = name.split_once(':')?;
    let (bus, ports) = device.split_once('-')?;
    let (configuration, interface) = interface.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_right = is_number(bus) && ports.split('.').all(is_number) && is_number(configuration);
    interface.parse().ok().filter(|_| is_right)
}

/// Whether it is the name of a HID device: BUS:VENDOR:PRODUCT.NUMBER.
fn is_hid(name: &str) -> bool {
    let parts: Vec<_> = name.split([':', '.']).collect();
    let is_hex = |text: &&str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 4 && parts.iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USB: &str = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2";

    fn at(rest: &str) -> Hardware {
        Hardware::at(&format!("{USB}/{rest}/input/input7/event7"))
    }

    #[test]
    fn interfaces_of_a_usb_device_are_one_thing() {
        let mouse = at("1-2:1.0/0003:1532:0084.0001");
        let keys = at("1-2:1.1/0003:1532:0084.0002");
        assert!(mouse.is_same(&keys));
        assert!(mouse.is_main() && !keys.is_main());
        let behind_a_hub = at("1-2.4/1-2.4:1.0");
        assert!(!behind_a_hub.is_same(&mouse) && behind_a_hub.is_main());
    }

    #[test]
    fn devices_paired_with_a_receiver_are_different_hardware() {
        let receiver = "1-2:1.2/0003:046D:C52B.0003";
        let one = at(&format!("{receiver}/0003:046D:101A.0004"));
        let two = at(&format!("{receiver}/0003:046D:404D.0005"));
        assert!(!one.is_same(&two));
        assert!(one.is_main() && two.is_main());
        assert!(!at(receiver).is_main());
    }

    #[test]
    fn other_buses_have_one_device_at_a_place() {
        let keyboard = Hardware::at("/sys/devices/platform/i8042/serio0/input/input3/event2");
        let mouse = Hardware::at("/sys/devices/platform/i8042/serio1/input/input4/event3");
        assert!(!keyboard.is_same(&mouse) && keyboard.is_main());
        let bluetooth = "/sys/devices/virtual/misc/uhid/0005:046D:B342.0004/input/input9/event9";
        assert!(Hardware::at(bluetooth).is_main());
    }

    #[test]
    fn programs_play_devices_without_hardware() {
        let one = Hardware::at("/sys/devices/virtual/input/input5/event5");
        let two = Hardware::at("/sys/devices/virtual/input/input6/event6");
        assert!(!one.is_main() && !one.is_same(&two));
    }

    #[test]
    fn devices_that_one_program_plays_as_one_thing_are_one() {
        let at = |number: u32, phys: &str| {
            let path = format!("/sys/devices/virtual/input/input{number}/event{number}");
            Hardware::of(&path, phys)
        };
        let keys = at(5, "remap-1/input0");
        assert!(keys.is_same(&at(6, "remap-1/input1")) && !keys.is_main());
        for (number, phys) in [
            (6, "remap-2/input1"),
            (6, "remap-1"),
            (6, ""),
            (7, "/input0"),
        ] {
            assert!(!keys.is_same(&at(number, phys)), "{phys}");
        }
        assert!(!at(5, "").is_same(&at(6, "")) && !at(5, "/input0").is_same(&at(6, "/input1")));
        // Hardware is where it is.
        let port = Hardware::of(&format!("{USB}/1-2:1.0/input/input7/event7"), "x/input0");
        assert!(port.is_same(&Hardware::of(
            &format!("{USB}/1-2:1.1/input/input8/event8"),
            "y/input1"
        )));
    }
}
