// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an evdev device was when it was there last, in a file: a guest that starts while the device is away is told
//! that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

use super::address::EvdevAddress;
use super::port::Port;

/// Longest file that is read. That of a keyboard with all keys has some 5 KiB.
const MAX_SIZE: u64 = 64 << 10;
/// The form of the file.
const FORM: u32 = 1;

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DescriptionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("it is longer than {MAX_SIZE} bytes")]
    Long,
    #[error("its form is {0}, and this program knows {FORM}")]
    Form(u32),
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    form: u32,
    /// Where the device was, or what it matched: the description of another device is of no use.
    path: PathBuf,
    name: String,
    serial: String,
    /// Where it was plugged in. Files of older versions do not say it.
    #[serde(default)]
    port: String,
    bus: u16,
    vendor: u16,
    product: u16,
    version: u16,
    properties: Vec<u16>,
    /// Codes by event type.
    codes: BTreeMap<u16, Vec<u16>>,
    /// Minimum, maximum, fuzz, flat and resolution by axis.
    axes: BTreeMap<u16, [i32; 5]>,
}

/// What a device was when it was there last.
#[derive(Clone, Debug)]
pub(super) struct LastSeen {
    pub(super) info: DeviceInfo,
    pub(super) port: Port,
}

/// What the device at `address` was, if `file` says so.
///
/// # Errors
/// If there is such a file, which cannot be used.
pub(super) fn load(
    file: &Path,
    address: &EvdevAddress,
) -> Result<Option<LastSeen>, DescriptionError> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    opened.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(DescriptionError::Long);
    }
    let found: Description = serde_json::from_slice(&text)?;
    if found.form != FORM {
        return Err(DescriptionError::Form(found.form));
    }
    Ok((found.path == place(address)).then(|| found.last_seen()))
}

/// Writes what the device at `address` is into `file`, unless it says so already.
///
/// # Errors
/// Those of writing a file beside it, and renaming that.
pub(super) fn save(
    file: &Path,
    address: &EvdevAddress,
    info: &DeviceInfo,
    port: &Port,
) -> Result<(), DescriptionError> {
    let text = serde_json::to_vec_pretty(&Description::new(place(address), info, port))?;
    if fs::read(file).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut written = File::create(&new)?;
    written.write_all(&text)?;
    // A power cut leaves the file as it was, or as it is now.
    written.sync_all()?;
    Ok(fs::rename(new, file)?)
}

/// An address in the file.
fn place(address: &EvdevAddress) -> PathBuf {
    match address {
        EvdevAddress::Path(path) => path.clone(),
        EvdevAddress::Match(rule) => rule.to_string().into(),
    }
}

impl Description {
    fn new(path: PathBuf, info: &DeviceInfo, port: &Port) -> Self {
        let codes = info.codes.iter();
        let axes = info.axes.iter();
        Self {
            form: FORM,
            path,
            name: info.name.clone(),
            serial: info.serial.clone(),
            port: port.as_str().to_owned(),
            bus: info.ids.bus,
            vendor: info.ids.vendor,
            product: info.ids.product,
            version: info.ids.version,
            properties: info.properties.iter().collect(),
            codes: codes
                .map(|(kind, codes)| (*kind, codes.iter().collect()))
                .collect(),
            axes: axes
                .map(|(axis, range)| {
                    let AbsInfo {
                        min,
                        max,
                        fuzz,
                        flat,
                        res,
                    } = *range;
                    (*axis, [min, max, fuzz, flat, res])
                })
                .collect(),
        }
    }

    fn last_seen(self) -> LastSeen {
        let port = self.port.as_str().into();
        let info = self.info();
        LastSeen { info, port }
    }

    fn info(self) -> DeviceInfo {
        let codes = self.codes.into_iter();
        let axes = self.axes.into_iter();
        DeviceInfo {
            name: self.name,
            serial: self.serial,
            ids: DevIds {
                bus: self.bus,
                vendor: self.vendor,
                product: self.product,
                version: self.version,
            },
            properties: Bitmap::from_iter(self.properties),
            codes: codes
                .map(|(kind, codes)| (kind, Bitmap::from_iter(codes)))
                .collect(),
            axes: axes
                .map(|(axis, [min, max, fuzz, flat, res])| {
                    let range = AbsInfo {
                        min,
                        max,
                        fuzz,
                        flat,
                        res,
                    };
                    (axis, range)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use conventions::InputMatch;

    use crate::input::device_info::testing;
    use crate::input::protocol::event_codes::EV_REP;

    use super::*;

    fn tablet() -> DeviceInfo {
        let mut info = testing::tablet();
        info.serial = "\u{1b}7".to_owned();
        info.codes.insert(EV_REP, [0, 1].into_iter().collect());
        info
    }

    #[test]
    fn device_is_described_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("device.json");
        let path = &EvdevAddress::Path("/dev/input/by-id/tablet".into());
        assert!(matches!(load(&file, path), Ok(None)));
        save(&file, path, &tablet(), &Port::from("usb-1/input0")).expect("it can be written");
        let found = load(&file, path)
            .expect("it can be read")
            .expect("it is there");
        assert_eq!(format!("{:?}", found.info), format!("{:?}", tablet()));
        assert_eq!(found.port, Port::from("usb-1/input0"));
        // As an older version wrote it.
        let text = fs::read_to_string(&file).expect("a file");
        let older = text.replace("  \"port\": \"usb-1/input0\",\n", "");
        assert_ne!(text, older);
        fs::write(&file, older).expect("a file");
        let found = load(&file, path).expect("it can be read");
        assert_eq!(found.expect("it is there").port, Port::default());
        save(&file, path, &tablet(), &Port::from("usb-1/input0")).expect("it can be written");
        assert!(fs::metadata(&file).expect("a file").len() < MAX_SIZE / 4);
        let matched =
            EvdevAddress::Match(InputMatch::new("056a:ffff".parse().expect("ids")).into());
        for other in [EvdevAddress::Path("/dev/input/by-id/other".into()), matched] {
            assert!(matches!(load(&file, &other), Ok(None)));
        }
        // Only what is new is written.
        let inode = |file: &Path| {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(file).expect("a file").ino()
        };
        let before = inode(&file);
        save(&file, path, &tablet(), &Port::from("usb-1/input0")).expect("it can be written");
        assert_eq!(inode(&file), before);
        save(&file, path, &DeviceInfo::default(), &Port::default()).expect("it can be written");
        let found = load(&file, path)
            .expect("it can be read")
            .expect("it is there");
        assert_eq!(found.info.name, "");
    }

    #[test]
    fn file_that_is_no_description_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("device.json");
        let address = EvdevAddress::Path("/dev/input/event0".into());
        let load = || load(&file, &address);
        for text in ["", "{}", "[1", "\u{0}"] {
            fs::write(&file, text).expect("a file");
            assert!(matches!(load(), Err(DescriptionError::Json(_))), "{text}");
        }
        fs::write(&file, vec![b' '; 100_000]).expect("a file");
        assert!(matches!(load(), Err(DescriptionError::Long)));
        save(&file, &address, &tablet(), &Port::default()).expect("it can be written");
        let text = fs::read_to_string(&file).expect("a file");
        fs::write(&file, text.replace("\"form\": 1", "\"form\": 2")).expect("a file");
        assert!(matches!(load(), Err(DescriptionError::Form(2))));
    }
}
