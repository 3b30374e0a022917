// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How an input device is found where no path leads to it for long: by its numbers, and its serial number
//! (`vhost-user-input --evdev-match=`, `vhostctl add input --match=`).

use std::fmt;
use std::str::FromStr;

/// The numbers of an input device's vendor and product, and its serial number: `VENDOR:PRODUCT[:SERIAL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputIds {
    /// The vendor's number on the device's bus.
    pub vendor: u16,
    /// The product's number.
    pub product: u16,
    /// The serial number; `None` for any. That of a Bluetooth device is its address.
    pub serial: Option<String>,
}

/// Why a text is not [`InputIds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputIdsError {
    /// It has another form.
    #[error(
        "not VENDOR:PRODUCT or VENDOR:PRODUCT:SERIAL with hexadecimal numbers as lsusb prints them, such as 046d:c31c"
    )]
    Malformed,
    /// There is a colon without a serial number.
    #[error("the serial number after the second colon is empty")]
    NoSerial,
}

/// What an input device says of itself (`EVIOCGID`, `EVIOCGUNIQ`, `EVIOCGNAME`, `EVIOCGPHYS`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputIdentity {
    /// The vendor's number.
    pub vendor: u16,
    /// The product's number.
    pub product: u16,
    /// The serial number; empty if it has none.
    pub serial: String,
    /// The name.
    pub name: String,
    /// Where it is connected.
    pub phys: String,
}

/// Which input device is meant: by its numbers and, of several nodes that a device has, by more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputMatch {
    /// The numbers of the device.
    pub ids: InputIds,
    /// The name of the node; `None` for any.
    pub name: Option<String>,
    /// The end of its [`phys`](InputIdentity::phys), such as `input1`; `None` for any.
    pub interface: Option<String>,
}

impl FromStr for InputIds {
    type Err = InputIdsError;

    fn from_str(text: &str) -> Result<Self, InputIdsError> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u16::from_str_radix(text, 16).ok();
            number
                .filter(|_| digits && text.len() <= 4)
                .ok_or(InputIdsError::Malformed)
        };
        // A serial number may be an address, with colons.
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next();
        let vendor = number(part().unwrap_or_default())?;
        let product = number(part().unwrap_or_default())?;
        let serial = part().map(str::to_owned);
        if serial.as_ref().is_some_and(String::is_empty) {
            return Err(InputIdsError::NoSerial);
        }
        Ok(Self {
            vendor,
            product,
            serial,
        })
    }
}

impl fmt::Display for InputIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)?;
        match &self.serial {
            Some(serial) => write!(f, ":{serial}"),
            None => Ok(()),
        }
    }
}

impl InputIds {
    /// Whether they are those of a device.
    #[must_use]
    pub fn matches(&self, device: &InputIdentity) -> bool {
        let serial = self.serial.as_ref();
        (self.vendor, self.product) == (device.vendor, device.product)
            && serial.is_none_or(|serial| *serial == device.serial)
    }
}

impl InputIdentity {
    /// The end of [`phys`](Self::phys), by which the nodes of one device differ: `input1` is that of the second
    /// interface of a USB device. `None` where it says no such thing.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        let (_, end) = self.phys.rsplit_once('/')?;
        end.starts_with("input").then_some(end)
    }
}

impl InputMatch {
    /// Any node of a device with these numbers.
    #[must_use]
    pub fn new(ids: InputIds) -> Self {
        Self {
            ids,
            name: None,
            interface: None,
        }
    }

    /// Whether `device` is meant.
    #[must_use]
    pub fn matches(&self, device: &InputIdentity) -> bool {
        let interface = self.interface.as_deref();
        self.ids.matches(device)
            && self.name.as_ref().is_none_or(|name| *name == device.name)
            && interface.is_none_or(|end| device.interface() == Some(end))
    }
}

impl fmt::Display for InputMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ids)?;
        for part in [&self.name, &self.interface].into_iter().flatten() {
            write!(f, ", {part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> InputIdentity {
        InputIdentity {
            vendor: 0x46d,
            product: 0xc31c,
            serial: "a0:b1:c2".into(),
            name: "Keyboard Consumer Control".into(),
            phys: "usb-0000:00:14.0-2/input1".into(),
        }
    }

    #[test]
    fn ids_are_written_as_lsusb_prints_them() {
        for (text, shown) in [
            ("046d:c31c", "046d:c31c"),
            ("46D:C31C", "046d:c31c"),
            ("0:ffff:A1", "0000:ffff:A1"),
            ("046d:b342:a0:b1:c2:d3:e4:f5", "046d:b342:a0:b1:c2:d3:e4:f5"),
        ] {
            let ids: InputIds = text.parse().expect(text);
            assert_eq!(ids.to_string(), shown);
            assert_eq!(shown.parse(), Ok(ids));
        }
        for text in [
            "",
            ":",
            "046d",
            "046d:",
            ":c31c",
            "046d:c31g",
            "00046d:c31c",
            "+46d:c31c",
            "0x46d:1",
            "046d c31c",
            "/dev/input/event3",
        ] {
            assert_eq!(
                text.parse::<InputIds>(),
                Err(InputIdsError::Malformed),
                "{text}"
            );
        }
        assert_eq!(
            "046d:c31c:".parse::<InputIds>(),
            Err(InputIdsError::NoSerial)
        );
    }

    #[test]
    fn device_matches_by_all_that_is_said() {
        let matches = |ids: &str, name: Option<&str>, interface: Option<&str>| {
            let rule = InputMatch {
                name: name.map(str::to_owned),
                interface: interface.map(str::to_owned),
                ..InputMatch::new(ids.parse().expect(ids))
            };
            rule.matches(&device())
        };
        assert!(matches("046d:c31c", None, None));
        assert!(matches("046d:c31c:a0:b1:c2", None, None));
        assert!(!matches("046d:c31c:a0:b1", None, None));
        assert!(!matches("046d:c31d", None, None) && !matches("046e:c31c", None, None));
        assert!(matches(
            "046d:c31c",
            Some("Keyboard Consumer Control"),
            Some("input1")
        ));
        assert!(!matches("046d:c31c", Some("Keyboard"), None));
        assert!(!matches("046d:c31c", None, Some("input0")));
        assert!(!matches("046d:c31c", None, Some("")));
    }

    #[test]
    fn interface_is_the_end_of_phys() {
        let interface = |phys: &str| {
            let phys = phys.to_owned();
            let device = InputIdentity { phys, ..device() };
            device.interface().map(str::to_owned)
        };
        assert_eq!(
            interface("usb-0000:00:14.0-1/input2:1").as_deref(),
            Some("input2:1")
        );
        assert_eq!(
            interface("isa0060/serio0/input0").as_deref(),
            Some("input0")
        );
        for phys in ["", "a0:b1:c2:d3:e4:f5", "input0", "LNXPWRBN/button"] {
            assert_eq!(interface(phys), None, "{phys}");
        }
    }
}
