// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders of unit files: where systemd reads them, which of them make a service what it is, and where
//! vhostctl writes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};

use crate::instance::{Instance, UnitName, UnitType};

/// The name of our drop-ins. systemd reads drop-ins by name: `override.conf`, which is what `systemctl edit` makes,
/// comes after it and counts more.
pub(crate) const FILE_NAME: &str = "50-vhostctl.conf";

/// The folders of systemd's unit files.
#[derive(Clone, Debug)]
pub(crate) struct UnitFolders {
    search: Vec<PathBuf>,
    write: PathBuf,
}

impl UnitFolders {
    #[cfg(test)]
    pub(crate) fn new(search: Vec<PathBuf>, write: PathBuf) -> Self {
        Self { search, write }
    }

    /// The folders of the system manager. SYSTEMD_UNIT_PATH has the same effect as for systemd(1).
    pub(crate) fn system() -> Self {
        const WRITE: &str = "/etc/systemd/system";
        const DEFAULT: [&str; 8] = [
            "/etc/systemd/system.control",
            "/run/systemd/system.control",
            "/run/systemd/transient",
            WRITE,
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ];
        let default = || DEFAULT.iter().map(PathBuf::from);
        let Some(path) = env::var_os("SYSTEMD_UNIT_PATH") else {
            return Self {
                search: default().collect(),
                write: WRITE.into(),
            };
        };
        let mut search = Vec::new();
        for part in env::split_paths(&path) {
            if part.as_os_str().is_empty() {
                search.extend(default());
            } else {
                search.push(part);
            }
        }
        let write = search.first().cloned().unwrap_or_else(|| WRITE.into());
        Self { search, write }
    }

    /// The folders that systemd searches, the most important first.
    pub(crate) fn search(&self) -> &[PathBuf] {
        &self.search
    }

    /// Our file for one unit of an instance.
    pub(crate) fn own_file(&self, instance: &Instance, unit_type: UnitType) -> PathBuf {
        self.drop_in_folder(instance, unit_type).join(FILE_NAME)
    }

    /// Our file for the render server beside a GPU.
    pub(crate) fn render_server_file(&self, gpu: &Instance) -> PathBuf {
        let folder = format!("{}.d", gpu.render_server());
        self.write.join(folder).join(FILE_NAME)
    }

    /// The administrator's folder for the drop-ins of a unit.
    pub(crate) fn drop_in_folder(&self, instance: &Instance, unit_type: UnitType) -> PathBuf {
        self.write.join(format!("{}.d", instance.unit(unit_type)))
    }

    /// The unit file of a service and its drop-ins, in the order in which systemd reads them.
    pub(crate) fn files(&self, instance: &Instance) -> Vec<PathBuf> {
        let names = [
            instance.unit(UnitType::Service),
            format!("{}@.service", instance.kind().template()),
        ];
        let in_order = || {
            names
                .iter()
                .flat_map(|name| self.search.iter().map(move |folder| (folder, name)))
        };
        let mut files: Vec<_> = in_order()
            .map(|(folder, name)| folder.join(name))
            .find(|path| path.is_file())
            .into_iter()
            .collect();
        // Of drop-ins with the same name, the first one hides the others.
        let mut drop_ins = BTreeMap::new();
        for (folder, name) in in_order() {
            let entries = folder.join(format!("{name}.d")).read_dir();
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    drop_ins.entry(entry.file_name()).or_insert(path);
                }
            }
        }
        files.extend(drop_ins.into_values());
        files
    }
}

/// The instances with a unit file, a drop-in or a `.wants` link of their own in one of the folders.
/// systemd keeps these in memory only while something refers to them.
pub(crate) fn configured_instances(folders: &[PathBuf]) -> BTreeSet<Instance> {
    let units = configured_units(folders).into_iter();
    units.map(|unit| unit.instance).collect()
}

/// The units of backends with a unit file, a drop-in or a `.wants` link of their own in one of the folders; some twice.
pub(crate) fn configured_units(folders: &[PathBuf]) -> Vec<UnitName> {
    let mut found = Vec::new();
    for folder in folders {
        for name in names(folder) {
            if name.ends_with(".wants") || name.ends_with(".requires") {
                found.extend(
                    names(&folder.join(&name))
                        .iter()
                        .filter_map(|name| UnitName::parse(name)),
                );
            } else {
                found.extend(UnitName::parse(name.strip_suffix(".d").unwrap_or(&name)));
            }
        }
    }
    found
}

/// The names in a folder; none if there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn second_sockets_are_told_from_first_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [
            "vhost-user-display@vm1.socket.d",
            "vhost-user-input@vm1:kbd.service.wants/vhost-user-events@vm1:kbd.socket",
            "vhost-user-gpu@vm2.service.d",
        ] {
            fs::create_dir_all(folder.path().join(path)).expect("a folder in it");
        }
        let units = configured_units(&[folder.path().to_owned()]).into_iter();
        let consoles = units.filter(|unit| unit.unit_type == UnitType::Console);
        let mut consoles: Vec<_> = consoles.map(|unit| unit.instance.to_string()).collect();
        consoles.sort();
        assert_eq!(consoles, ["vm1:gpu", "vm1:kbd"]);
    }

    #[test]
    fn configured_instances_are_found_in_all_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let make =
            |path: &str| fs::create_dir_all(folder.path().join(path)).expect("a folder in it");
        make("etc/vhost-user-input@vm1:kbd.service.d");
        make("etc/vhost-user-gpu@.service.d");
        make("etc/sshd.service.d");
        make("etc/sockets.target.wants/vhost-user-gpu@vm2.socket");
        make("usr/vhost-user-gpu@vm3.service");
        make("usr/vhost-user-input@vm1:kbd.socket.d");
        let folders = ["etc", "usr", "missing"].map(|name| folder.path().join(name));
        let found: Vec<_> = configured_instances(&folders)
            .iter()
            .map(|i| i.unit(UnitType::Socket))
            .collect();
        assert_eq!(
            found,
            [
                "vhost-user-input@vm1:kbd.socket",
                "vhost-user-gpu@vm2.socket",
                "vhost-user-gpu@vm3.socket"
            ]
        );
    }
}
