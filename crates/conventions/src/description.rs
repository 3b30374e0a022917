// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The content of a descriptor, by which an installed program is found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A descriptor's members (vhost-user.json: VhostUserBackend).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendDescription {
    /// What the program is, for people.
    pub description: String,
    /// The name of the [`DeviceType`](crate::DeviceType); programs of others may have types that are newer.
    #[serde(rename = "type")]
    pub device_type: String,
    /// The path of the program.
    pub binary: PathBuf,
    /// Further words on the program, for management software.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use crate::DeviceType;

    use super::*;

    #[test]
    fn installed_descriptors_are_read() {
        for (text, device_type) in [
            (
                include_str!("../../../json/40-vhost-user-gpu.json"),
                DeviceType::Gpu,
            ),
            (
                include_str!("../../../json/40-vhost-user-input.json"),
                DeviceType::Input,
            ),
        ] {
            let description: BackendDescription = serde_json::from_str(text).expect(text);
            assert_eq!(description.device_type.parse(), Ok(device_type));
            let written = serde_json::to_string(&description).expect("JSON");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&written).expect("JSON"),
                serde_json::from_str::<serde_json::Value>(text).expect(text)
            );
        }
    }
}
