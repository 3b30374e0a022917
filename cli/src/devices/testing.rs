// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices for unit tests.

use super::{Hardware, InputDevice, Names};

/// The input device with the node `event{number}`, which has these names besides, and nothing else.
pub(crate) fn input_device(number: u32, names: &[&str]) -> InputDevice {
    bare_input_device(&format!("/dev/input/event{number}"), names)
}

/// The input device with this node, which has these names besides, and nothing else.
pub(crate) fn bare_input_device(node: &str, names: &[&str]) -> InputDevice {
    InputDevice {
        names: Names::new(node, names),
        node: node.to_owned(),
        by_id: None,
        by_path: None,
        name: None,
        kinds: Vec::new(),
        bus: None,
        vendor_id: None,
        product_id: None,
        serial: None,
        identity: None,
        usb: None,
        seat: "seat0".to_owned(),
        hardware: Hardware::default(),
    }
}
