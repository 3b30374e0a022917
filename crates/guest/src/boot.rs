// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of init before the agent listens.

use std::ffi::CStr;
use std::fs::{self, File};

use anyhow::Context as _;
use rustix::mount::{MountFlags, mount};

/// Paths of the modules to load, one a line, in the order of their dependencies.
const MODULE_LIST: &str = "/lib/modules/list";

/// Mounts proc, sysfs, devtmpfs and the temporary file systems.
pub(crate) fn mount_all() -> anyhow::Result<()> {
    let nosuid = MountFlags::NOSUID;
    for (kind, target, flags) in [
        (
            "proc",
            "/proc",
            nosuid | MountFlags::NODEV | MountFlags::NOEXEC,
        ),
        (
            "sysfs",
            "/sys",
            nosuid | MountFlags::NODEV | MountFlags::NOEXEC,
        ),
        ("devtmpfs", "/dev", nosuid),
        ("tmpfs", "/run", nosuid | MountFlags::NODEV),
        ("tmpfs", "/tmp", nosuid | MountFlags::NODEV),
    ] {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        mount(kind, target, kind, flags, None::<&CStr>)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    Ok(())
}

/// Loads the modules that the initramfs lists.
pub(crate) fn load_modules() -> anyhow::Result<()> {
    let list =
        fs::read_to_string(MODULE_LIST).with_context(|| format!("cannot read {MODULE_LIST}"))?;
    for path in list.lines() {
        let module = File::open(path).with_context(|| format!("cannot open {path}"))?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot load {path}")),
        }
    }
    Ok(())
}
