// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What systemd keeps on disk for one backend after it ended: the folders of `StateDirectory=` and `CacheDirectory=`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::instance::{Instance, UnitKind};
use crate::systemd::Properties;
use crate::verbs::error::Error;

/// The properties with folders, and where these lie.
const FOLDERS: [(&str, &str); 2] = [
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
];
/// The shader caches of GPUs, in folders with the names of their VMs: those of vhost-user-gpu-virgl.conf and of
/// vhost-render-server@.service.
const SHADER_CACHES: [&str; 2] = [
    "/var/cache/vhost-user-gpu",
    "/var/cache/vhost-render-server",
];
/// With a dynamic user a folder is a link to one of the same name in here.
const PRIVATE: &str = "private";

/// The folders of a backend that no other one has.
#[derive(Debug)]
pub(crate) struct KeptFolders(Vec<PathBuf>);

impl KeptFolders {
    /// Those of the service `properties`, of `instance`. A folder is its own if it has its name: a drop-in may name
    /// one that others use as well. The shader caches of a GPU are its own also if its settings no longer name them.
    pub(crate) fn of(instance: &Instance, properties: &Properties) -> Self {
        let own = instance.to_string();
        let folders = FOLDERS.iter().flat_map(|(property, root)| {
            let names = properties.list(property).into_iter();
            names.map(|name| (Path::new(root), name))
        });
        let own = folders.filter(|(_, name)| is_own(name, &own));
        let own = own.map(|(root, name)| root.join(name));
        Self(own.chain(shader_caches(instance)).collect())
    }

    /// Deletes them. Returns those that there were.
    pub(crate) fn delete(&self) -> Result<Vec<&Path>, Error> {
        let mut deleted = Vec::new();
        for folder in &self.0 {
            let private = private(folder);
            let of_both = [Some(folder), private.as_ref()];
            let mut any = false;
            for folder in of_both.into_iter().flatten() {
                any |= delete(folder).map_err(|error| Error::file("delete", folder, error))?;
            }
            if any {
                deleted.push(folder.as_path());
            }
        }
        Ok(deleted)
    }
}

/// Where the drivers of a GPU keep their shaders; nowhere for other backends.
fn shader_caches(instance: &Instance) -> Vec<PathBuf> {
    let vm = instance.specifier();
    // Whoever starts a unit chooses its instance: one of these would name the folder of all.
    if instance.kind() != UnitKind::Gpu || matches!(vm.as_str(), "." | "..") {
        return Vec::new();
    }
    let caches = SHADER_CACHES.into_iter();
    caches.map(|caches| Path::new(caches).join(&vm)).collect()
}

/// Whether the folder `name` has the name of the instance `own`.
fn is_own(name: &str, own: &str) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == own)
        && !name.split('/').any(|part| part == "..")
}

/// Where the folder is to which the link `folder` leads, below `/var/lib/private`.
fn private(folder: &Path) -> Option<PathBuf> {
    FOLDERS.iter().find_map(|(_, root)| {
        let name = folder.strip_prefix(root).ok()?;
        Some(Path::new(root).join(PRIVATE).join(name))
    })
}

/// Deletes a folder, or a link to one, whose owner is not trusted: no link in it is followed. Returns whether there was one.
fn delete(folder: &Path) -> io::Result<bool> {
    let deleted = match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(folder),
        Ok(_) => fs::remove_file(folder),
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folder_is_its_own_by_its_name() {
        assert!(is_own("vhost-user-input/vm1:kbd", "vm1:kbd"));
        for others in [
            "vhost-user-input",
            "vm1:kbd/shared",
            "vm1:kbd2",
            "../vm1:kbd",
            "",
        ] {
            assert!(!is_own(others, "vm1:kbd"), "{others}");
        }
        assert_eq!(
            private(Path::new("/var/lib/a/vm1:kbd")).as_deref(),
            Some(Path::new("/var/lib/private/a/vm1:kbd"))
        );
    }

    #[test]
    fn shader_caches_are_those_of_one_gpu() {
        let caches = |unit: &str| shader_caches(&Instance::from_unit(unit).expect("a unit"));
        assert_eq!(
            caches("vhost-user-gpu@vm1.service"),
            [
                "/var/cache/vhost-user-gpu/vm1",
                "/var/cache/vhost-render-server/vm1"
            ]
            .map(PathBuf::from)
        );
        for others in [
            "vhost-user-gpu@..service",
            "vhost-user-gpu@...service",
            "vhost-vnc@vm1.service",
            "vhost-user-input@vm1:kbd.service",
        ] {
            assert!(caches(others).is_empty(), "{others}");
        }
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let [kept, own, link] = ["kept", "own", "link"].map(|name| root.path().join(name));
        for folder in [&kept, &own] {
            fs::create_dir(folder).expect("a folder");
            fs::write(folder.join("file"), "").expect("a file");
        }
        symlink(&kept, own.join("out")).expect("a link");
        symlink(&kept, &link).expect("a link");
        for folder in [&own, &link] {
            assert!(delete(folder).expect("it can be deleted"));
            assert!(!delete(folder).expect("it is deleted"));
        }
        assert!(kept.join("file").exists());
    }
}
