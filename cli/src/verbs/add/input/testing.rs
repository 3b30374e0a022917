// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Input devices for tests.

use conventions::InputIdentity;

use crate::devices::{Hardware, InputDevice, InputKind, Names};

/// What tells a node from others.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) serial: &'static str,
    /// The USB interface.
    pub(super) port: &'static str,
    pub(super) phys: &'static str,
}

/// A keyboard of the model 046d:c31c without stable links.
pub(super) fn node(number: u32, at: Node) -> InputDevice {
    let path = format!("/dev/input/event{number}");
    let (usb, _) = at.port.split_once(':').expect("an interface");
    let port = at.port;
    let syspath = format!("/sys/devices/usb1/{usb}/{port}/input/input{number}/event{number}");
    InputDevice {
        names: Names::new(&path, &[]),
        node: path,
        by_id: None,
        by_path: None,
        name: Some(at.name.to_owned()),
        kinds: vec![InputKind::Keyboard],
        bus: Some("usb".to_owned()),
        vendor_id: Some("046d".to_owned()),
        product_id: Some("c31c".to_owned()),
        serial: Some(at.serial.to_owned()).filter(|serial| !serial.is_empty()),
        seat: "seat0".to_owned(),
        hardware: Hardware::of(&syspath, at.phys),
        identity: Some(InputIdentity {
            vendor: 0x46d,
            product: 0xc31c,
            serial: at.serial.to_owned(),
            name: at.name.to_owned(),
            phys: at.phys.to_owned(),
        }),
        usb: None,
    }
}
