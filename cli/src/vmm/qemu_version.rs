// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version of the QEMU that is installed.

use std::env::consts::ARCH;
use std::process::{Command, Stdio};

use super::qemu::FIRST_WITH_VULKAN;

/// A hint for the user if the QEMU in PATH is too old for a GPU with Vulkan; none if there is no QEMU.
pub(crate) fn too_old_for_vulkan() -> Option<String> {
    let program = format!("qemu-system-{ARCH}");
    let output = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    hint(&program, &String::from_utf8_lossy(&output.ok()?.stdout))
}

/// The hint about a program that says this of its version.
fn hint(program: &str, said: &str) -> Option<String> {
    let (major, minor) = version(said)?;
    let (first_major, first_minor) = FIRST_WITH_VULKAN;
    ((major, minor) < FIRST_WITH_VULKAN).then(|| {
        format!(
            "A GPU with Vulkan needs QEMU {first_major}.{first_minor} or newer. This host's {program} is {major}.{minor}."
        )
    })
}

/// Reads `QEMU emulator version 10.0.2 (...)`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, number) = said.split_once("version ")?;
    let mut parts = number
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_qemu_is_named() {
        let said = |version| format!("QEMU emulator version {version} (Debian)\nCopyright\n");
        for version in ["11.1.3", "11.2.0", "12.0.0"] {
            assert_eq!(hint("qemu", &said(version)), None, "{version}");
        }
        for version in ["11.0.1", "10.0.13"] {
            let hint = hint("qemu", &said(version)).expect("a hint");
            let expected = format!("qemu is {}.", version.rsplit_once('.').expect("dots").0);
            assert!(hint.ends_with(&expected), "{hint}");
        }
        assert_eq!(hint("qemu", "no such thing"), None);
    }
}
