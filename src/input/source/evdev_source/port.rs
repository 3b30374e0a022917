// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where devices are plugged in.

use evdev::raw_stream::RawDevice;

/// Where a device is plugged in (`EVIOCGPHYS`), such as `usb-0000:00:14.0-2/input0`; empty if the kernel does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Port(String);

impl Port {
    /// That of `device`.
    pub(super) fn of(device: &RawDevice) -> Self {
        device.physical_path().unwrap_or_default().into()
    }

    /// As the kernel says it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device with `serial` that is `here`, and like the one that was at this port, may nevertheless be
    /// another one. Nothing else than its serial number tells: one that was moved says the same.
    pub(super) fn may_be_anothers(&self, here: &Self, serial: &str) -> bool {
        let known = !self.0.is_empty() && !here.0.is_empty();
        serial.is_empty() && known && self != here
    }
}

impl From<&str> for Port {
    fn from(port: &str) -> Self {
        Self(port.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_or_serial_number_tells_two_devices_apart() {
        let [one, two, unknown] = ["usb-1/input0", "usb-2/input0", ""].map(Port::from);
        assert!(one.may_be_anothers(&two, ""));
        for (was, is, serial) in [
            (&one, &one, ""),
            (&one, &two, "A"),
            (&unknown, &two, ""),
            (&one, &unknown, ""),
        ] {
            assert!(!was.may_be_anothers(is, serial), "{was:?} {is:?} {serial}");
        }
    }
}
