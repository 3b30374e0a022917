// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The system's keyboard layouts, which vhost-vnc reads.

use std::path::Path;
use std::process::Command;

/// Why there are none, for users; `None` if there are.
#[must_use]
pub fn missing() -> Option<String> {
    let libraries = Command::new("/sbin/ldconfig").arg("-p").output();
    let has_library = libraries
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libxkbcommon.so.0"));
    let has_data = Path::new("/usr/share/X11/xkb/rules/evdev").exists();
    (!has_library || !has_data)
        .then(|| "keyboard layouts need the packages libxkbcommon0 and xkb-data".to_owned())
}
