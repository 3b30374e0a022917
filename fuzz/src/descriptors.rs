// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors of programs, as vhostctl reads them.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use conventions::DeviceType;
use serde::de::IgnoredAny;
use serde_json::Value;
use tempfile::TempDir;

use crate::bytes::Bytes;
use real::{DescriptorState, list};

// vhostctl is a program and no library; its room is taken as it lies.
#[path = "../../cli/src/descriptors/mod.rs"]
#[allow(dead_code, unused_imports)]
mod real;

/// A folder where libvirt looks, and one where it does not.
struct Folders {
    _root: TempDir,
    own: PathBuf,
    system: PathBuf,
}

fn folders() -> &'static Folders {
    static FOLDERS: OnceLock<Folders> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        // In memory, where there is such a place.
        let shm = PathBuf::from("/dev/shm");
        let root = tempfile::tempdir_in(if shm.is_dir() {
            shm
        } else {
            std::env::temp_dir()
        });
        let root = root.expect("a folder");
        let own = root.path().join("qemu/vhost-user");
        let system = root.path().join("etc/qemu/vhost-user");
        for folder in [&own, &system] {
            fs::create_dir_all(folder).expect("a folder");
        }
        Folders {
            _root: root,
            own,
            system,
        }
    })
}

/// Two files of one name with any content: one in the user's folder, perhaps, one in the system's.
pub fn descriptors(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let options = bytes.u8();
    let name = if options & 1 == 0 {
        "50-x.json"
    } else {
        "50-x"
    };
    let Folders { own, system, .. } = folders();
    let (in_own, in_system) = (own.join(name), system.join(name));
    let own_text = (options & 2 != 0).then(|| bytes.some(2000));
    let text = bytes.rest();
    for (path, text) in [(&in_own, own_text), (&in_system, Some(text))] {
        if let Some(text) = text {
            fs::write(path, text).expect("a file can be written");
        }
    }
    let found = list(&[own.clone(), system.clone()], false);
    for path in [&in_own, &in_system] {
        // What was not written is not there.
        let _ = fs::remove_file(path);
    }
    assert_eq!(found.len(), 1 + usize::from(own_text.is_some()));
    for descriptor in &found {
        let text = if descriptor.path == in_system {
            Some(text)
        } else {
            own_text
        };
        let text = text.expect("only what was written is found");
        assert_eq!(descriptor.name, "50-x");
        assert!(!descriptor.breaks_libvirt || descriptor.path == in_system);
        let first = descriptor.path == found[0].path;
        match descriptor.state {
            DescriptorState::Usable => {
                assert!(descriptor.problems.is_empty() && first);
                // What is usable says what it is, as any reader of JSON reads it.
                let _: IgnoredAny = serde_json::from_slice(text).expect("usable, and no JSON");
                let Ok(value) = serde_json::from_slice::<Value>(text) else {
                    // It has a number, in a member that nobody reads, which is too large for a `Value`.
                    continue;
                };
                let kind = value["type"].as_str().expect("usable, and of no type");
                assert!(kind.parse::<DeviceType>().is_ok());
                assert_eq!(descriptor.device_type.as_deref(), Some(kind));
                let binary = value["binary"].as_str().expect("usable, and no program");
                assert_eq!(descriptor.binary, Some(PathBuf::from(binary)));
                assert!(binary.starts_with('/'));
                assert!(!descriptor.breaks_libvirt);
            }
            DescriptorState::Broken => assert!(!descriptor.problems.is_empty() && first),
            DescriptorState::Mask => assert!(text.is_empty() && first),
            DescriptorState::Hidden | DescriptorState::Masked => {
                assert!(!first);
                assert_eq!(descriptor.by.as_ref(), Some(&in_own));
            }
        }
    }
}
