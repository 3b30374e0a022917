//! The answer to `--print-capabilities` (schema: QEMU's docs/interop/vhost-user.json).

use std::io::{self, Write};

use serde::Serialize;

/// What a program can do on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The kind of backend: `gpu` or `input`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The features of that kind, by their names in the schema. Always there: libvirt insists.
    pub features: Vec<&'static str>,
}

impl Capabilities {
    /// Writes them as JSON.
    ///
    /// # Errors
    /// As writing to `out`.
    pub fn print(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn features_are_there_even_when_there_are_none() {
        let mut out = Vec::new();
        let none = Capabilities {
            kind: "gpu",
            features: Vec::new(),
        };
        none.print(&mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json, serde_json::json!({"type": "gpu", "features": []}));
    }
}
