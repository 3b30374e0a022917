// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the device when the program starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conventions::{InputIdentity, InputIds, InputMatch};

use crate::input::device_info::DeviceInfo;

use super::address::EvdevAddress;
use super::description::{self, LastSeen};
use super::error::{EvdevOpenError, cannot_open};
use super::opener::Target;
use super::sysfs::InputFolders;

/// A device that is to be opened, now or when it comes.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is; `None` if it is not there.
    pub(super) node: Option<PathBuf>,
    /// By what it is found later.
    pub(super) target: Target,
}

/// Finds the device at `address`. Of several that match, the one that was there before is meant, if `described` says
/// what that was.
///
/// # Errors
/// If several devices match.
pub(super) fn find(
    address: &EvdevAddress,
    described: Option<&LastSeen>,
    folders: InputFolders,
) -> Result<Found, EvdevOpenError> {
    let rule = match address {
        EvdevAddress::Path(path) => {
            let node = match fs::metadata(path) {
                Ok(_) => Some(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(cannot_open(address, error)),
            };
            let target = Target::Path(path.clone());
            return Ok(Found { node, target });
        }
        EvdevAddress::Match(rule) => rule,
    };
    let mut found = folders.matching(rule);
    let before = described.map(|seen| narrowed(rule, &seen.info.name, &seen.info.serial));
    let mut retain_the_only = |is_before: &dyn Fn(&InputIdentity) -> bool| {
        let count = found.iter().filter(|(_, device)| is_before(device)).count();
        if found.len() > 1 && count == 1 {
            found.retain(|(_, device)| is_before(device));
        }
    };
    if let (Some(before), Some(seen)) = (&before, described) {
        retain_the_only(&|device| before.matches(device));
        retain_the_only(&|device| before.matches(device) && device.phys == seen.port.as_str());
    }
    let (node, rule) = match found.as_slice() {
        [] => (None, before.unwrap_or_else(|| (**rule).clone())),
        [(node, device)] => {
            let rule = narrowed(rule, &device.name, &device.serial);
            (Some(folders.nodes().join(node)), rule)
        }
        several => {
            let described = several.iter().map(|(node, device)| {
                let node = node.to_string_lossy();
                let InputIdentity { name, serial, .. } = device;
                let interface = device.interface().map(|end| format!(", {end}"));
                let serial = (!serial.is_empty()).then(|| format!(", serial number {serial}"));
                let [serial, interface] = [serial, interface].map(Option::unwrap_or_default);
                format!("{node} ({name}{serial}{interface})")
            });
            return Err(EvdevOpenError::Several {
                address: address.clone(),
                nodes: described.collect(),
            });
        }
    };
    let port = match found.as_slice() {
        [(_, device)] => Some(device.phys.as_str().into()),
        _ => described.map(|seen| seen.port.clone()),
    };
    let target = Target::Match(rule, folders, port.unwrap_or_default());
    Ok(Found { node, target })
}

/// By what the device at `address` is found that a predecessor served. Not by what that one recorded: a guest may have
/// taken it over. What counts is what a start wrote into the file `description`, which no process writes that serves a
/// guest; else what the device says that was kept, `left`.
pub(super) fn target_of_left(
    address: &EvdevAddress,
    description: Option<&Path>,
    left: Option<&DeviceInfo>,
    folders: InputFolders,
) -> Target {
    let rule = match address {
        EvdevAddress::Path(path) => return Target::Path(path.clone()),
        EvdevAddress::Match(rule) => rule,
    };
    let described = description.and_then(|file| description::load(file, address).ok().flatten());
    let known = described.as_ref().map(|seen| &seen.info).or(left);
    let rule = match known {
        Some(info) => narrowed(rule, &info.name, &info.serial),
        None => (**rule).clone(),
    };
    let port = described.map(|seen| seen.port);
    Target::Match(rule, folders, port.unwrap_or_default())
}

/// The same rule for this device alone: what comes back has to have its name and serial number anyway. What the rule
/// says already stays.
fn narrowed(rule: &InputMatch, name: &str, serial: &str) -> InputMatch {
    let known = |said: &Option<String>, known: &str| {
        let said = said.as_deref().unwrap_or(known);
        Some(said.to_owned())
    };
    InputMatch {
        ids: InputIds {
            serial: known(&rule.ids.serial, serial),
            ..rule.ids
        },
        name: known(&rule.name, name),
        ..rule.clone()
    }
}

/// Checks that the device that was opened is the one that was found: its node may have become another one's.
///
/// # Errors
/// If it is not.
pub(super) fn check(address: &EvdevAddress, info: &DeviceInfo) -> Result<(), EvdevOpenError> {
    let EvdevAddress::Match(rule) = address else {
        return Ok(());
    };
    let device = InputIdentity {
        vendor: info.ids.vendor,
        product: info.ids.product,
        serial: info.serial.clone(),
        name: info.name.clone(),
        phys: String::new(),
    };
    let rule = InputMatch {
        interface: None,
        ..(**rule).clone()
    };
    match rule.matches(&device) {
        true => Ok(()),
        false => Err(EvdevOpenError::Missing(address.clone())),
    }
}

#[cfg(test)]
mod tests {
    use crate::input::source::evdev_source::port::Port;
    use crate::input::source::evdev_source::sysfs::keyboard;

    use super::*;

    fn address(ids: &str) -> EvdevAddress {
        EvdevAddress::Match(InputMatch::new(ids.parse().expect(ids)).into())
    }

    fn info(name: &str, serial: &str) -> DeviceInfo {
        DeviceInfo {
            name: name.to_owned(),
            serial: serial.to_owned(),
            ..DeviceInfo::default()
        }
    }

    fn seen(name: &str, serial: &str, port: &str) -> LastSeen {
        LastSeen {
            info: info(name, serial),
            port: port.into(),
        }
    }

    #[test]
    fn twins_are_told_apart_by_their_serial_numbers_or_not_at_all() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = InputFolders::within(root.path());
        let find = |ids: &str, described: Option<&LastSeen>| {
            let found = find(&address(ids), described, folders.clone())?;
            let node = found.node.as_deref().and_then(|node| node.file_name());
            Ok::<_, EvdevOpenError>(node.map(|node| node.to_string_lossy().into_owned()))
        };
        assert_eq!(find("046d:c31c", None).expect("no error"), None);
        folders.plug("event3", &keyboard("Keyboard", "A"));
        let three = Some("event3".to_owned());
        assert_eq!(find("046d:c31c", None).expect("no error"), three);
        folders.plug("event4", &keyboard("Keyboard", "B"));
        let said = find("046d:c31c", None).expect_err("two match").to_string();
        for part in [
            "event3 (Keyboard, serial number A, input1) and event4 (Keyboard, serial number B, input1)",
            "046d:c31c",
            "--evdev-match=",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(find("046d:c31c:A", None).expect("no error"), three);
        // The one that was there before.
        let before = seen("Keyboard", "A", "usb-2/input1");
        assert_eq!(find("046d:c31c", Some(&before)).expect("no error"), three);
        folders.plug("event5", &keyboard("Keyboard", "A"));
        find("046d:c31c", Some(&before)).expect_err("two are like it");
        // One of them is where it was.
        let before = seen("Keyboard", "A", "usb-2/input1");
        let mut there = keyboard("Keyboard", "A");
        there.phys = "usb-2/input1".to_owned();
        folders.unplug("event5");
        folders.plug("event5", &there);
        let five = Some("event5".to_owned());
        assert_eq!(find("046d:c31c", Some(&before)).expect("no error"), five);
        find("046d:c31c:A", None).expect_err("two match");
    }

    #[test]
    fn what_is_found_later_is_the_same_device() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = InputFolders::within(root.path());
        let rule = |described: Option<&LastSeen>| {
            let found = find(&address("046d:c31c"), described, folders.clone());
            match found.expect("no error").target {
                Target::Match(rule, ..) => rule,
                Target::Path(path) => panic!("{path:?}"),
            }
        };
        assert!(rule(None).matches(&keyboard("Any", "A")));
        let known = rule(Some(&seen("Keyboard", "", "")));
        assert!(known.matches(&keyboard("Keyboard", "")));
        assert!(
            !known.matches(&keyboard("Keyboard", "A")) && !known.matches(&keyboard("Mouse", ""))
        );
        folders.plug("event3", &keyboard("Keyboard", ""));
        assert_eq!(rule(None), known);
    }

    /// A guest that takes the program over writes its records, but neither the options nor the file.
    #[test]
    fn what_a_predecessor_served_is_found_by_what_no_guest_can_write() {
        let root = tempfile::tempdir().expect("a folder");
        let file = root.path().join("device.json");
        let rule = |address: &EvdevAddress, file: Option<&Path>, left: Option<&DeviceInfo>| {
            let folders = InputFolders::within(root.path());
            match target_of_left(address, file, left, folders) {
                Target::Match(rule, ..) => rule,
                Target::Path(path) => panic!("{path:?}"),
            }
        };
        let any = address("046d:c31c");
        let left = info("Keyboard", "B");
        // There is no file yet.
        let by_left = rule(&any, Some(&file), Some(&left));
        assert!(by_left.matches(&keyboard("Keyboard", "B")));
        assert!(!by_left.matches(&keyboard("Mouse", "A")));
        assert!(rule(&any, Some(&file), None).matches(&keyboard("Any", "C")));
        description::save(&file, &any, &info("Mouse", "A"), &Port::default())
            .expect("it can be written");
        for left in [None, Some(&left)] {
            let by_file = rule(&any, Some(&file), left);
            assert!(by_file.matches(&keyboard("Mouse", "A")));
            assert!(!by_file.matches(&keyboard("Keyboard", "B")));
        }
        let chosen = address("046d:c31c:A");
        let by_options = rule(&chosen, None, Some(&left));
        assert_eq!(by_options.ids.serial.as_deref(), Some("A"));
    }

    #[test]
    fn device_that_took_the_node_is_not_the_one_that_was_found() {
        let mut there = info("Keyboard", "A");
        there.ids.vendor = 0x46d;
        there.ids.product = 0xc31c;
        let mut rule = InputMatch::new("046d:c31c:A".parse().expect("numbers"));
        rule.interface = Some("input1".to_owned());
        let address = EvdevAddress::Match(rule.into());
        check(&address, &there).expect("it is the same");
        there.serial = "B".to_owned();
        check(&address, &there).expect_err("it is another one");
        check(&EvdevAddress::Path("/dev/input/event3".into()), &there).expect("any is meant");
    }
}
