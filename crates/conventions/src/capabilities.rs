// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The answer to `--print-capabilities`.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::DeviceType;

/// What a program can do on this host (vhost-user.json: VHostUserBackendCapabilities).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The name of the [`DeviceType`]; programs of others may have types that are newer.
    #[serde(rename = "type")]
    pub device_type: String,
    /// The features of that type, by their names in the schema. Some programs leave the member out; libvirt
    /// ignores a GPU that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
}

impl Capabilities {
    /// Those of a program that has these features.
    #[must_use]
    pub fn new(device_type: DeviceType, features: &[&str]) -> Self {
        Self {
            device_type: device_type.name().to_owned(),
            features: Some(features.iter().map(|&feature| feature.to_owned()).collect()),
        }
    }

    /// Whether a program lists a feature.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().flatten().any(|it| it == feature)
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// As writing to `out`.
    pub fn print(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }

    /// Reads what a program printed.
    ///
    /// # Errors
    /// Where it is not a JSON object of the schema.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        // serde takes a list of the members for a struct too, and lets only a struct have no member twice.
        let _: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)?;
        serde_json::from_slice(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_printed_even_if_there_are_none() {
        let mut out = Vec::new();
        let none = Capabilities::new(DeviceType::Gpu, &[]);
        none.print(&mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json, serde_json::json!({"type": "gpu", "features": []}));
    }

    #[test]
    fn printed_capabilities_are_read() {
        let mut out = Vec::new();
        let input = Capabilities::new(DeviceType::Input, &["evdev-path", "no-grab"]);
        input.print(&mut out).unwrap();
        assert_eq!(Capabilities::parse(&out).unwrap(), input);
        assert!(input.has("no-grab") && !input.has("virgl"));
    }

    #[test]
    fn only_an_object_is_read() {
        let whole = br#"{"type": "rng", "features": [], "more": "\u00e9"}"#;
        assert!(Capabilities::parse(whole).is_ok());
        let latin = &b"{\"type\": \"rng\", \"more\": \"\xe9\"}"[..];
        let twice = br#"{"type": "rng", "type": "gpu"}"#;
        for json in [
            &br#"["rng", []]"#[..],
            &twice[..],
            br#""rng""#,
            b"null",
            latin,
        ] {
            assert!(Capabilities::parse(json).is_err(), "{json:?}");
        }
    }

    #[test]
    fn features_may_be_missing() {
        let read = Capabilities::parse(br#"{"type": "fs"}"#).unwrap();
        assert_eq!(read.features, None);
    }
}
