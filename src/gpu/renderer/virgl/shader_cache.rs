//! Mesa's cache of compiled shaders, where the disk has no room for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

/// What Mesa maps of its cache and writes to by memory (some 1.3 MiB), and room for a few shaders.
const ROOM: u64 = 8 << 20;
/// Mesa's own switch.
const DISABLE: &str = "MESA_SHADER_CACHE_DISABLE";

/// Has Mesa keep no shaders where the file system of its cache is full. It maps its index there, and
/// a page of that without a block on the disk would end the process by SIGBUS.
///
/// To be called before there is a second thread; with one, it does nothing.
pub(super) fn give_up_if_full() {
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
    ::log::warn!(
        "{} has {free} bytes left: compiled shaders are not kept",
        folder.display()
    );
    // SAFETY: this is the only thread, as was just seen, and only it could start another, so
    // nobody reads the environment meanwhile.
    unsafe { std::env::set_var(DISABLE, "true") };
}

/// Where Mesa keeps its shaders, by the environment.
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

/// Bytes left on the file system of `folder`, or of the nearest one above that exists.
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
    fn the_folder_is_the_one_that_mesa_takes() {
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
    fn room_is_that_of_what_exists() {
        let there = free_bytes(Path::new("/")).unwrap();
        assert!(there > 0);
        assert!(free_bytes(Path::new("/nonexistent/at/all")).is_some());
        assert_eq!(free_bytes(Path::new("/proc/self")), Some(0));
    }
}
