// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The types of vhost-user devices.

use std::fmt;
use std::str::FromStr;

/// A type of device (vhost-user.json: VHostUserBackendType).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the schema's own names, without more to say")]
pub enum DeviceType {
    NineP,
    Balloon,
    Block,
    Caif,
    Console,
    Crypto,
    Fs,
    Gpu,
    Input,
    Net,
    Rng,
    Rpmsg,
    RprocSerial,
    Scsi,
    Vsock,
}

/// The schema has no type of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no device type '{0}'")]
pub struct UnknownDeviceType(String);

impl DeviceType {
    /// All types, in the order of their names.
    pub const ALL: [Self; 15] = [
        Self::NineP,
        Self::Balloon,
        Self::Block,
        Self::Caif,
        Self::Console,
        Self::Crypto,
        Self::Fs,
        Self::Gpu,
        Self::Input,
        Self::Net,
        Self::Rng,
        Self::Rpmsg,
        Self::RprocSerial,
        Self::Scsi,
        Self::Vsock,
    ];

    /// Its name in the schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NineP => "9p",
            Self::Balloon => "balloon",
            Self::Block => "block",
            Self::Caif => "caif",
            Self::Console => "console",
            Self::Crypto => "crypto",
            Self::Fs => "fs",
            Self::Gpu => "gpu",
            Self::Input => "input",
            Self::Net => "net",
            Self::Rng => "rng",
            Self::Rpmsg => "rpmsg",
            Self::RprocSerial => "rproc-serial",
            Self::Scsi => "scsi",
            Self::Vsock => "vsock",
        }
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DeviceType {
    type Err = UnknownDeviceType;

    fn from_str(text: &str) -> Result<Self, UnknownDeviceType> {
        Self::ALL
            .into_iter()
            .find(|device_type| device_type.name() == text)
            .ok_or_else(|| UnknownDeviceType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_types_are_read_by_their_names() {
        for device_type in DeviceType::ALL {
            assert_eq!(device_type.name().parse(), Ok(device_type));
        }
        assert!("GPU".parse::<DeviceType>().is_err());
        assert!(DeviceType::ALL.is_sorted_by_key(|device_type| device_type.name()));
    }
}
