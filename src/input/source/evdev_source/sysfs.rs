// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host's input devices say of themselves, read from sysfs: no device has to be opened for that.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use conventions::{InputIdentity, InputMatch};

/// How the nodes of evdev devices begin.
const NODE: &str = "event";

/// Where the kernel and udev have input devices.
#[derive(Clone, Debug)]
pub(super) struct InputFolders {
    /// The nodes.
    nodes: PathBuf,
    /// A folder for each node, or a link to it.
    classes: PathBuf,
    /// The folder to which those links lead.
    devices: PathBuf,
}

impl InputFolders {
    /// Those of the host.
    pub(super) fn of_host() -> Self {
        Self {
            nodes: "/dev/input".into(),
            classes: "/sys/class/input".into(),
            devices: "/sys/devices".into(),
        }
    }

    /// The folder of the nodes.
    pub(super) fn nodes(&self) -> &Path {
        &self.nodes
    }

    /// What has to be readable for [`matching`](Self::matching), beside the folder of the nodes.
    pub(super) fn devices(&self) -> &Path {
        &self.devices
    }

    /// The nodes of the devices that `rule` means, in the order of their names, and what these say of themselves.
    pub(super) fn matching(&self, rule: &InputMatch) -> Vec<(OsString, InputIdentity)> {
        let nodes = fs::read_dir(&self.nodes).into_iter().flatten().flatten();
        let nodes = nodes.map(|entry| entry.file_name());
        let mut found: Vec<_> = nodes
            .filter(|node| node.as_encoded_bytes().starts_with(NODE.as_bytes()))
            .filter_map(|node| self.identity(&node).map(|identity| (node, identity)))
            .filter(|(_, identity)| rule.matches(identity))
            .collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// What the device of a node says of itself; `None` if it is about to go.
    fn identity(&self, node: &OsStr) -> Option<InputIdentity> {
        let device = self.classes.join(node).join("device");
        let text = |name: &str| {
            let text = fs::read(device.join(name)).ok()?;
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            Some(String::from_utf8_lossy(text).into_owned())
        };
        let number = |name: &str| u16::from_str_radix(&text(name)?, 16).ok();
        Some(InputIdentity {
            vendor: number("id/vendor")?,
            product: number("id/product")?,
            serial: text("uniq").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            phys: text("phys").unwrap_or_default(),
        })
    }
}

/// What a keyboard says of itself, for tests.
#[cfg(test)]
pub(super) fn keyboard(name: &str, serial: &str) -> InputIdentity {
    InputIdentity {
        vendor: 0x46d,
        product: 0xc31c,
        serial: serial.to_owned(),
        name: name.to_owned(),
        phys: "usb-1/input1".to_owned(),
    }
}

#[cfg(test)]
impl InputFolders {
    /// Folders in `root`, for tests.
    pub(super) fn within(root: &Path) -> Self {
        Self {
            nodes: root.join("input"),
            classes: root.join("class"),
            devices: root.to_owned(),
        }
    }

    /// Folders in `root` as on a host, where nodes lie below a folder with others.
    pub(super) fn apart(root: &Path) -> Self {
        Self {
            nodes: root.join("dev/input"),
            classes: root.join("sys/class"),
            devices: root.join("sys"),
        }
    }

    /// A device comes up: what the kernel shows of it, and then its node.
    pub(super) fn plug(&self, node: &str, identity: &InputIdentity) {
        let device = self.classes.join(node).join("device");
        fs::create_dir_all(device.join("id")).expect("a folder");
        fs::create_dir_all(&self.nodes).expect("a folder");
        let numbers = [
            ("id/vendor", identity.vendor),
            ("id/product", identity.product),
        ];
        let numbers = numbers.map(|(name, number)| (name, format!("{number:04x}")));
        let texts = [
            ("uniq", &identity.serial),
            ("name", &identity.name),
            ("phys", &identity.phys),
        ];
        let texts = texts.map(|(name, text)| (name, text.clone()));
        for (name, text) in numbers.into_iter().chain(texts) {
            fs::write(device.join(name), format!("{text}\n")).expect("a file");
        }
        fs::write(self.nodes.join(node), "").expect("a node");
    }

    /// A device goes: first its node, then what the kernel shows of it.
    pub(super) fn unplug(&self, node: &str) {
        fs::remove_file(self.nodes.join(node)).expect("a node");
        fs::remove_dir_all(self.classes.join(node)).expect("a folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_what_they_say() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = InputFolders::within(root.path());
        let found = |rule: &str, name: Option<&str>| -> Vec<String> {
            let rule = InputMatch {
                name: name.map(str::to_owned),
                ..InputMatch::new(rule.parse().expect(rule))
            };
            let found = folders.matching(&rule).into_iter();
            found
                .map(|(node, _)| node.to_string_lossy().into_owned())
                .collect()
        };
        assert!(found("046d:c31c", None).is_empty());
        folders.plug("event3", &keyboard("Keyboard", "A"));
        folders.plug("event10", &keyboard("Keyboard", "B "));
        folders.plug("event4", &keyboard("Keyboard\nKeys", "B "));
        folders.plug("mouse0", &keyboard("Keyboard", "A"));
        assert_eq!(found("046d:c31c", None), ["event10", "event3", "event4"]);
        assert_eq!(found("046d:c31c:A", None), ["event3"]);
        assert_eq!(found("046d:c31c:B ", Some("Keyboard")), ["event10"]);
        assert_eq!(found("046d:c31c", Some("Keyboard\nKeys")), ["event4"]);
        assert!(found("046d:c31d", None).is_empty());
        // It is about to go.
        fs::remove_dir_all(root.path().join("class/event3/device")).expect("a folder");
        assert!(found("046d:c31c:A", None).is_empty());
    }
}
