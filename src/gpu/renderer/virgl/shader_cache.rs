// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disables Mesa's cache of compiled shaders on a full disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

/// Bytes that the cache needs: its index of some 1.3 MiB, which Mesa maps, and a few shaders.
const ROOM: u64 = 8 << 20;
/// Mesa's variable that disables the cache.
const DISABLE: &str = "MESA_SHADER_CACHE_DISABLE";

/// Disables the cache if its file system is full. Otherwise a write to the mapped index, which may have
/// no block on the disk, would end the process by SIGBUS.
///
/// Call it before the process starts a second thread; with one, it does nothing.
pub(super) fn disable_if_disk_full() {
    let Some(folder) = folder(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    else {
        return;
    };
    let Some(free) = free_bytes(&folder).filter(|free| *free < ROOM) else {
        return;
    };
    if !is_single_threaded() {
        return;
    }
    log::warn!(
        "{} has {free} bytes left: compiled shaders are not cached",
        folder.display()
    );
    // SAFETY: this is the only thread, as just checked, so that nobody reads the environment
    // meanwhile.
    unsafe { std::env::set_var(DISABLE, "true") };
}

/// Mesa's cache folder, from the environment.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if variable(DISABLE).is_some() {
        return None;
    }
    let named = |name| variable(name).map(PathBuf::from);
    named("MESA_SHADER_CACHE_DIR")
        .or_else(|| named("MESA_GLSL_CACHE_DIR"))
        .or_else(|| named("XDG_CACHE_HOME"))
        .or_else(|| Some(named("HOME")?.join(".cache")))
}

/// Free bytes on the file system of `folder`, or of its nearest ancestor that exists.
fn free_bytes(folder: &Path) -> Option<u64> {
    let mut found = folder.ancestors().filter_map(|path| statvfs(path).ok());
    let system = found.next()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_the_one_that_mesa_uses() {
        let of = |set: &[(&str, &str)]| {
            folder(|name| {
                let value = set.iter().find(|(known, _)| *known == name)?.1;
                Some(value.into())
            })
        };
        let home = ("HOME", "/root");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[home]), Some("/root/.cache".into()));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/x")]), Some("/x".into()));
        let own = ("MESA_SHADER_CACHE_DIR", "/m");
        assert_eq!(of(&[home, own]), Some("/m".into()));
        assert_eq!(of(&[own, (DISABLE, "true")]), None);
    }

    #[test]
    fn free_bytes_are_those_of_the_nearest_folder() {
        let there = free_bytes(Path::new("/")).unwrap();
        assert!(there > 0);
        assert!(free_bytes(Path::new("/nonexistent/at/all")).is_some());
        assert_eq!(free_bytes(Path::new("/proc/self")), Some(0));
    }
}
