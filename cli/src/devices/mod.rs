// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices of the host, by udev. Nothing outside of this folder uses udev. No device is opened, so no
//! permission is needed.

mod hardware;
mod input_kind;
mod names;
#[cfg(test)]
pub(crate) mod testing;
mod watch;

use std::io;
use std::path::Path;

use conventions::{InputIdentity, InputIds, InputMatch, printable};
use serde::Serialize;
use udev::{Enumerator, Hwdb};

pub(crate) use hardware::Hardware;
pub(crate) use input_kind::InputKind;
pub(crate) use names::Names;
pub(crate) use watch::{Action, DeviceEvent, DeviceWatch};

use input_kind::kinds;
use names::Links;

/// Why devices could not be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "Failed to ask udev for {what}: {source}. Check that /sys and /run/udev are mounted and readable."
    )]
    Udev {
        what: &'static str,
        source: io::Error,
    },
}

/// Any device that can be given to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum HostDevice {
    Gpu(Box<RenderNode>),
    Input(Box<InputDevice>),
}

/// The render node of a GPU, which renders but cannot change the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RenderNode {
    /// The device node, such as `/dev/dri/renderD128`.
    pub node: String,
    /// Its stable name below `/dev/dri/by-path`.
    pub by_path: Option<String>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// The vendor, by the hardware database, or its number.
    pub vendor: Option<String>,
    /// The model, by the hardware database, or its number.
    pub model: Option<String>,
    /// Whether the firmware used it as the display at boot.
    pub boot_vga: bool,
    /// The seat that its screens belong to.
    pub seat: String,
    /// All its names.
    #[serde(skip)]
    pub names: Names,
}

/// An evdev device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct InputDevice {
    /// The device node, such as `/dev/input/event3`.
    pub node: String,
    /// Its stable name below `/dev/input/by-id`: follows the device to any other port.
    pub by_id: Option<String>,
    /// Its stable name below `/dev/input/by-path`: stays with the port.
    pub by_path: Option<String>,
    /// The name that the device reports.
    pub name: Option<String>,
    /// Its kinds; a device can have several.
    pub kinds: Vec<InputKind>,
    /// The bus by which it is connected.
    pub bus: Option<String>,
    /// The vendor's number on that bus, in hexadecimal.
    pub vendor_id: Option<String>,
    /// The product's number, in hexadecimal.
    pub product_id: Option<String>,
    /// The serial number; that of a Bluetooth device is its address.
    pub serial: Option<String>,
    /// The seat that it belongs to.
    pub seat: String,
    /// All its names.
    #[serde(skip)]
    pub names: Names,
    /// The piece of hardware that it is a part of.
    #[serde(skip)]
    pub hardware: Hardware,
    /// What it says of itself, if it has numbers.
    #[serde(skip)]
    pub identity: Option<InputIdentity>,
    /// The numbers of the USB device that it is a part of. They are others than its own if that is a receiver.
    #[serde(skip)]
    pub usb: Option<InputIds>,
}

/// The folders of device nodes, and those of the stable links that udev makes.
const DRI: &str = "/dev/dri/";
const DRI_BY_PATH: &str = "/dev/dri/by-path/";
const INPUT: &str = "/dev/input/";
const INPUT_BY_ID: &str = "/dev/input/by-id/";
const INPUT_BY_PATH: &str = "/dev/input/by-path/";

impl RenderNode {
    /// Its stable link, if it has one.
    pub(crate) fn stable_link(&self) -> Option<&str> {
        let by_rule = self.names.stable_link_of_rule(&[DRI_BY_PATH]);
        let by_path = self.by_path.as_deref();
        by_path.or(by_rule).or_else(|| self.names.any_stable_link())
    }

    /// The path to configure it by: the stable link, or else the node.
    pub(crate) fn preferred_path(&self) -> &str {
        self.stable_link().unwrap_or(&self.node)
    }

    /// Whether this is the path of its node, or of a link to it.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.names.is_at(path)
    }
}

impl InputDevice {
    /// Its stable link, if it has one: udev's link for the device, that of an administrator's rule, udev's for the port.
    pub(crate) fn stable_link(&self) -> Option<&str> {
        let by_rule = self
            .names
            .stable_link_of_rule(&[INPUT_BY_ID, INPUT_BY_PATH]);
        let by_id = self.by_id.as_deref();
        by_id
            .or(by_rule)
            .or(self.by_path.as_deref())
            .or_else(|| self.names.any_stable_link())
    }

    /// The path to configure it by: the stable link, or else the node.
    pub(crate) fn preferred_path(&self) -> &str {
        self.stable_link().unwrap_or(&self.node)
    }

    /// Whether this is the path of its node, or of a link to it.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.names.is_at(path)
    }

    /// Whether it is the one that `rule` means, or one of several.
    pub(crate) fn is_meant_by(&self, rule: &InputMatch) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| rule.matches(identity))
    }

    /// Its own numbers, with its serial number if it has one.
    pub(crate) fn ids(&self) -> Option<InputIds> {
        let identity = self.identity.as_ref()?;
        let serial = Some(&identity.serial).filter(|serial| !serial.is_empty());
        Some(InputIds {
            vendor: identity.vendor,
            product: identity.product,
            serial: serial.cloned(),
        })
    }

    /// Its own numbers, if `wanted` are those, or those of its USB device; with a serial number if `wanted` has one.
    pub(crate) fn own_ids(&self, wanted: &InputIds) -> Option<InputIds> {
        let own = self.ids()?;
        if self.identity.as_ref().is_some_and(|it| wanted.matches(it)) {
            return Some(wanted.clone());
        }
        let usb = self.usb.as_ref()?;
        let is_usb = (usb.vendor, usb.product) == (wanted.vendor, wanted.product)
            && (wanted.serial.is_none() || usb.serial == wanted.serial);
        let serial = own.serial.filter(|_| wanted.serial.is_some());
        is_usb.then_some(InputIds { serial, ..own })
    }

    /// Whether this is its name, with unprintable characters as they are or escaped.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        let name = self.name.as_deref();
        name.is_some_and(|name| name == text || printable(name) == text)
    }

    /// Whether the text is a part of one of its names.
    pub(crate) fn is_like(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let is_part = |name: &str| name.to_lowercase().contains(&text);
        let name = self.name.as_deref();
        self.names.last_parts().any(is_part)
            || name.is_some_and(|name| is_part(name) || is_part(&printable(name)))
    }

    /// Whether it is certainly a keyboard to type on: not the keys of a mouse, nor a device that is also a mouse.
    pub(crate) fn is_plain_keyboard(&self, all: &[Self]) -> bool {
        let points = |kinds: &[InputKind]| kinds.iter().any(|kind| kind.points());
        self.kinds.contains(&InputKind::Keyboard)
            && self.hardware.is_main()
            && !all
                .iter()
                .filter(|other| other.hardware.is_same(&self.hardware))
                .any(|other| points(&other.kinds))
            && !points(&self.kinds)
    }
}

/// Access to udev.
pub(crate) struct Devices {
    /// The hardware database, for names that udevd has not looked up; some machines have none.
    hwdb: Option<Hwdb>,
}

impl Devices {
    /// Opens the hardware database, if there is one; without it, numbers replace names.
    pub(crate) fn new() -> Self {
        Self {
            hwdb: Hwdb::new().ok(),
        }
    }

    /// The GPUs, in the order of their nodes.
    pub(crate) fn render_nodes(&self) -> Result<Vec<RenderNode>, Error> {
        let nodes = scan("drm", "renderD*", "GPUs")?;
        let links = Links::of(&nodes, DRI);
        Ok(nodes
            .iter()
            .filter_map(|device| self.render_node(device, &links))
            .collect())
    }

    /// The input devices, in the order of their nodes.
    pub(crate) fn inputs(&self) -> Result<Vec<InputDevice>, Error> {
        let nodes = scan("input", "event*", "input devices")?;
        let links = Links::of(&nodes, INPUT);
        Ok(nodes
            .iter()
            .filter_map(|device| input(device, &links))
            .collect())
    }

    /// Whether there is an input device that `rule` means.
    pub(crate) fn has_match(&self, rule: &InputMatch) -> bool {
        let inputs = self.inputs().unwrap_or_default();
        inputs.iter().any(|device| device.is_meant_by(rule))
    }

    /// Whether udev has a device at this path, by its node or a link.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        let inputs = self.inputs().unwrap_or_default();
        let nodes = self.render_nodes().unwrap_or_default();
        inputs.iter().any(|device| device.is_at(path)) || nodes.iter().any(|node| node.is_at(path))
    }

    fn render_node(&self, device: &udev::Device, links: &Links) -> Option<RenderNode> {
        let node = utf8(device.devnode()?);
        let names = Names::of(device, links)?;
        let parent = device.parent();
        let pci = parent_of(device, "pci");
        let (vendor, model) = pci.as_ref().map_or((None, None), |pci| {
            let name = |key, attr| {
                property(pci, key)
                    .or_else(|| self.looked_up(pci, key))
                    .or_else(|| attribute(pci, attr))
            };
            (
                name("ID_VENDOR_FROM_DATABASE", "vendor"),
                name("ID_MODEL_FROM_DATABASE", "device"),
            )
        });
        Some(RenderNode {
            by_path: names.stable_link_in(DRI_BY_PATH).map(str::to_owned),
            driver: parent.as_ref().and_then(|parent| parent.driver()).map(utf8),
            vendor,
            model,
            boot_vga: pci
                .and_then(|pci| attribute(&pci, "boot_vga"))
                .is_some_and(|value| value == "1"),
            seat: seat(device)
                .or_else(|| card_of(&parent?).as_ref().and_then(seat))
                .unwrap_or_else(|| DEFAULT_SEAT.to_owned()),
            node,
            names,
        })
    }

    fn looked_up(&self, device: &udev::Device, key: &str) -> Option<String> {
        let modalias = attribute(device, "modalias")?;
        Some(utf8(self.hwdb.as_ref()?.query_one(modalias.as_str(), key)?))
    }
}

/// The seat of devices without a rule for another one (sd-login(3)).
const DEFAULT_SEAT: &str = "seat0";

fn input(device: &udev::Device, links: &Links) -> Option<InputDevice> {
    // The event node's parent is the input device as such, with the name and the numbers.
    let parent = parent_of(device, "input");
    let of_parent = |name| parent.as_ref().and_then(|parent| attribute(parent, name));
    let names = Names::of(device, links)?;
    let identity = parent.as_ref().and_then(identity);
    let phys = identity.as_ref().map_or("", |identity| &identity.phys);
    let hardware = Hardware::of(&utf8(device.syspath()), phys);
    Some(InputDevice {
        node: utf8(device.devnode()?),
        by_id: names.stable_link_in(INPUT_BY_ID).map(str::to_owned),
        by_path: names.stable_link_in(INPUT_BY_PATH).map(str::to_owned),
        names,
        hardware,
        usb: usb(device),
        serial: of_parent("uniq"),
        identity,
        name: of_parent("name"),
        kinds: kinds(|key| property(device, key).is_some_and(|value| value == "1")),
        bus: of_parent("id/bustype")
            .and_then(|number| bus(&number))
            .map(str::to_owned)
            .or_else(|| property(device, "ID_BUS")),
        vendor_id: of_parent("id/vendor"),
        product_id: of_parent("id/product"),
        seat: seat(device).unwrap_or_else(|| DEFAULT_SEAT.to_owned()),
    })
}

/// What an input device says of itself, as the program that serves it reads it.
fn identity(parent: &udev::Device) -> Option<InputIdentity> {
    let text = |name| parent.attribute_value(name).map(utf8);
    let number = |name| u16::from_str_radix(text(name)?.trim(), 16).ok();
    Some(InputIdentity {
        vendor: number("id/vendor")?,
        product: number("id/product")?,
        serial: text("uniq").unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        phys: text("phys").unwrap_or_default(),
    })
}

/// The numbers of the USB device that an input device is a part of, and its serial number, by udev.
fn usb(device: &udev::Device) -> Option<InputIds> {
    let number = |key| u16::from_str_radix(&property(device, key)?, 16).ok();
    Some(InputIds {
        vendor: number("ID_VENDOR_ID")?,
        product: number("ID_MODEL_ID")?,
        serial: property(device, "ID_SERIAL_SHORT"),
    })
}

/// The word for a bus number of the kernel's `linux/input.h` (`BUS_*`), given in hexadecimal.
fn bus(number: &str) -> Option<&'static str> {
    Some(match u16::from_str_radix(number, 16).ok()? {
        0x01 => "pci",
        0x02 => "isapnp",
        0x03 => "usb",
        0x04 => "hil",
        0x05 => "bluetooth",
        0x06 => "virtual",
        0x10 => "isa",
        0x11 => "i8042",
        0x12 => "xtkbd",
        0x13 => "rs232",
        0x14 => "gameport",
        0x15 => "parport",
        0x16 => "amiga",
        0x17 => "adb",
        0x18 => "i2c",
        0x19 => "host",
        0x1a => "gsc",
        0x1b => "atari",
        0x1c => "spi",
        0x1d => "rmi",
        0x1e => "cec",
        0x1f => "intel-ishtp",
        0x20 => "amd-sfh",
        _ => return None,
    })
}

/// The devices of a subsystem by a pattern of their names, in the order of their numbers.
fn scan(subsystem: &str, sysname: &str, what: &'static str) -> Result<Vec<udev::Device>, Error> {
    let scan = || {
        let mut enumerator = Enumerator::new()?;
        enumerator.match_subsystem(subsystem)?;
        enumerator.match_sysname(sysname)?;
        let mut devices: Vec<_> = enumerator.scan_devices()?.collect();
        devices.sort_by_key(|device| (device.sysnum(), device.syspath().to_owned()));
        Ok(devices)
    };
    scan().map_err(|source| Error::Udev { what, source })
}

/// The nearest parent in a subsystem.
fn parent_of(device: &udev::Device, subsystem: &str) -> Option<udev::Device> {
    device.parent_with_subsystem(subsystem).ok().flatten()
}

/// The card node of the same GPU: rules assign seats to it, not to render nodes.
fn card_of(gpu: &udev::Device) -> Option<udev::Device> {
    let mut enumerator = Enumerator::new().ok()?;
    enumerator.match_subsystem("drm").ok()?;
    enumerator.match_sysname("card[0-9]*").ok()?;
    enumerator.match_parent(gpu).ok()?;
    enumerator
        .scan_devices()
        .ok()?
        .find(|card| card.devnode().is_some())
}

/// The seat that a rule assigned to it or a parent.
fn seat(device: &udev::Device) -> Option<String> {
    std::iter::successors(Some(device.clone()), udev::Device::parent)
        .find_map(|device| property(&device, "ID_SEAT"))
}

fn property(device: &udev::Device, key: &str) -> Option<String> {
    device
        .property_value(key)
        .map(utf8)
        .filter(|value| !value.is_empty())
}

fn attribute(device: &udev::Device, name: &str) -> Option<String> {
    device
        .attribute_value(name)
        .map(|value| utf8(value).trim().to_owned())
        .filter(|value| !value.is_empty())
}

fn utf8(text: impl AsRef<Path>) -> String {
    text.as_ref().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
