// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the program that a unit starts next understands the state that the running one keeps: both have the version in
//! their files.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use conventions::StateVersion;
use memchr::memmem;

use super::command_line;
use crate::systemd::Properties;

/// Programs are smaller.
const MAX_PROGRAM: u64 = 256 << 20;

/// Whether the program of the unit of these properties understands the state of the process `pid`; none if that cannot be
/// told, as by who may not look into the process.
pub(super) fn is_understood(pid: u32, service: &Properties) -> Option<bool> {
    let next = command_line::program(service)?;
    let [running, next] = [format!("/proc/{pid}/exe"), next].map(File::open);
    compare(&running.ok()?, &next.ok()?)
}

fn compare(running: &File, next: &File) -> Option<bool> {
    let [one, other] = [running.metadata().ok()?, next.metadata().ok()?];
    let [one, other] = [Identity::of(&one), Identity::of(&other)];
    if one == other {
        return Some(true);
    }
    Some(known_version(one, running)? == known_version(other, next)?)
}

/// By which a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The version of a program, which is read once: many VMs have the same, and "monitor" looks again and again.
fn known_version(identity: Identity, program: &File) -> Option<u32> {
    static KNOWN: Mutex<BTreeMap<Identity, Option<u32>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let version = || version(program).ok().flatten();
    *known.entry(identity).or_insert_with(version)
}

/// None if a program does not tell it.
fn version(program: &File) -> io::Result<Option<u32>> {
    let mut bytes = Vec::new();
    program.take(MAX_PROGRAM).read_to_end(&mut bytes)?;
    let at = memmem::find(&bytes, &StateVersion::MARK);
    let behind = at.and_then(|at| bytes.get(at + StateVersion::MARK.len()..));
    Ok(behind.and_then(StateVersion::parse))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn program(version: Option<u32>) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\x7fELF vhost-user kept state").unwrap();
        if let Some(version) = version {
            file.write_all(&StateVersion::MARK).unwrap();
            file.write_all(&version.to_le_bytes()).unwrap();
        }
        file.write_all(b"more").unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn versions_of_two_programs_are_compared() {
        // All at once: the next file gets the number of one that is gone.
        let all = [Some(2), Some(2), Some(3), None].map(program);
        let [one, twin, other, silent] = &all;
        assert_eq!(compare(one, twin), Some(true));
        assert_eq!(compare(one, other), Some(false));
        assert_eq!(compare(one, silent), None);
        assert_eq!(compare(silent, one), None);
        assert_eq!(compare(silent, silent), Some(true));
    }

    #[test]
    fn version_may_be_cut() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&StateVersion::MARK).unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        assert_eq!(version(&file).unwrap(), None);
    }
}
