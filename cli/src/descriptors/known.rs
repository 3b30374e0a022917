// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Known programs and what descriptors do not state of them: the form of their socket and files, and what the unit has
//! to allow.
//!
//! Any other program gets a listening socket by `--fd`, a dynamic user and no network.

use std::path::{Path, PathBuf};

use super::probe::{self, ProbeError};

/// How a program takes its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketForm {
    /// A listening socket, from which it accepts by itself.
    Listening,
    /// A connected socket.
    Connected,
    /// None: it creates its own at a path.
    Own,
}

/// How a program takes the folder or file that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileForm {
    /// By the options of the conventions or, for folders, of virtiofsd.
    Options,
    /// As one node and one export of qemu-storage-daemon(1), which names the socket as well.
    BlockExport,
}

/// A program and what it needs.
#[derive(Debug)]
pub(crate) struct KnownProgram {
    /// Names of the executable; a name with a slash is a path.
    names: &'static [&'static str],
    device_type: &'static str,
    /// How it takes its socket.
    pub socket: SocketForm,
    /// Arguments without which it does not serve a front-end.
    pub arguments: &'static [&'static str],
    /// How it takes a folder or file.
    pub file: FileForm,
    /// Whether it has to run as root.
    pub needs_root: bool,
    /// Further directives of its service: no more than it needs.
    pub service: &'static [(&'static str, &'static str)],
    /// An option that older versions lack, and the first Debian release that has it.
    needs_option: Option<(&'static str, &'static str)>,
    /// Debian's package.
    package: Option<&'static str>,
}

/// Why this version of a program cannot be used: the predicate of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    #[error("is too old: it has no option {option}, which came with {since}")]
    Old {
        option: &'static str,
        since: &'static str,
    },
    #[error("--help {0}")]
    Probe(#[source] ProbeError),
}

/// The folders of programs that are named without a path and have no descriptor.
const FOLDERS: [&str; 6] = [
    "/usr/local/libexec",
    "/usr/local/bin",
    "/usr/libexec",
    "/usr/lib/qemu",
    "/usr/bin",
    "/usr/sbin",
];

const PROGRAMS: [KnownProgram; 5] = [
    // Both virtiofsds, the one written in C (QEMU up to 7.2) and the one written in Rust. They keep files of
    // all users, so they are root with CAP_CHOWN to CAP_SETFCAP. The last two are for their own sandbox, which
    // changes the root to the shared folder and then drops them.
    KnownProgram {
        names: &["virtiofsd"],
        device_type: "fs",
        socket: SocketForm::Listening,
        arguments: &[],
        file: FileForm::Options,
        needs_root: true,
        service: &[
            (
                "CapabilityBoundingSet",
                "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_MKNOD CAP_SETFCAP CAP_SETGID CAP_SETUID \
                 CAP_SETPCAP CAP_SYS_ADMIN",
            ),
            ("RestrictNamespaces", "mnt net pid"),
            // It keeps a descriptor open for every file that the guest knows.
            ("LimitNOFILE", "1000000"),
        ],
        needs_option: None,
        package: Some("virtiofsd, of Debian 12 in qemu-system-common"),
    },
    KnownProgram {
        names: &["passt"],
        device_type: "net",
        socket: SocketForm::Connected,
        // By default, the address of the gateway would open the host's loopback to the guest.
        arguments: &["--vhost-user", "--foreground", "--no-map-gw"],
        file: FileForm::Options,
        needs_root: false,
        // Those of its own sandbox.
        service: &[("RestrictNamespaces", "ipc mnt pid user uts")],
        needs_option: Some(("--vhost-user", "Debian 13")),
        package: Some("passt"),
    },
    KnownProgram {
        names: &["qemu-storage-daemon"],
        device_type: "block",
        socket: SocketForm::Listening,
        arguments: &[],
        file: FileForm::BlockExport,
        needs_root: false,
        service: &[
            ("CapabilityBoundingSet", ""),
            ("RestrictNamespaces", "yes"),
            ("RestrictSUIDSGID", "yes"),
        ],
        needs_option: None,
        package: Some("qemu-utils, of Debian 12 in qemu-system-common"),
    },
    KnownProgram {
        names: &["vhost-device-rng"],
        device_type: "rng",
        socket: SocketForm::Own,
        arguments: &["--socket-path={socket}"],
        file: FileForm::Options,
        needs_root: false,
        service: &[("RestrictNamespaces", "yes")],
        needs_option: None,
        package: None,
    },
    // QEMU's programs written in C: libvhost-user serves a connection.
    KnownProgram {
        names: &[
            "/usr/lib/qemu/vhost-user-gpu",
            "/usr/libexec/vhost-user-gpu",
        ],
        device_type: "gpu",
        socket: SocketForm::Connected,
        arguments: &[],
        file: FileForm::Options,
        needs_root: false,
        service: &[],
        needs_option: None,
        package: None,
    },
];

/// The entry of a program.
pub(crate) fn lookup(program: &Path) -> Option<&'static KnownProgram> {
    PROGRAMS.iter().find(|known| {
        known.names.iter().any(|name| match name.contains('/') {
            true => Path::new(name) == program,
            false => program.file_name().is_some_and(|file| file == *name),
        })
    })
}

/// The path of an installed program with this name and type in the table.
pub(crate) fn installed(name: &str, device_type: &str) -> Option<PathBuf> {
    PROGRAMS
        .iter()
        .filter(|known| known.device_type == device_type && known.names.contains(&name))
        .flat_map(|_| FOLDERS)
        .map(|folder| Path::new(folder).join(name))
        .find(|path| super::program_problem(path).is_none())
}

/// The package of a program with this name and type in the table.
pub(crate) fn package(name: &str, device_type: &str) -> Option<&'static str> {
    let mut all = PROGRAMS.iter();
    let known =
        all.find(|known| known.device_type == device_type && known.names.contains(&name))?;
    known.package
}

/// The names of all programs that [`installed`] finds, with their types.
pub(crate) fn all_installed() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROGRAMS
        .iter()
        .flat_map(|known| known.names.iter().map(|name| (*name, known.device_type)))
        .filter(|(name, device_type)| installed(name, device_type).is_some())
}

impl KnownProgram {
    /// Whether it cannot start without a folder.
    pub(crate) fn needs_folder(&self) -> bool {
        self.device_type == "fs"
    }

    /// Checks that the installed version of the program can be used.
    pub(crate) fn check_version(&self, program: &Path) -> Result<(), VersionError> {
        let Some((option, since)) = self.needs_option else {
            return Ok(());
        };
        match probe::help(program).map_err(VersionError::Probe)? {
            help if help.contains(option) => Ok(()),
            _ => Err(VersionError::Old { option, since }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_names_or_paths() {
        let form = |path: &str| lookup(Path::new(path)).map(|known| known.socket);
        for path in ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"] {
            assert_eq!(form(path), Some(SocketForm::Listening), "{path}");
        }
        assert_eq!(form("/opt/bin/passt"), Some(SocketForm::Connected));
        assert_eq!(
            form("/usr/lib/qemu/vhost-user-gpu"),
            Some(SocketForm::Connected)
        );
        // Ours takes both, and has a unit of its own.
        assert_eq!(form("/usr/bin/vhost-user-gpu"), None);
        assert_eq!(form("/usr/bin/pasta"), None);
    }

    #[test]
    fn packages_are_known_of_the_right_type() {
        let virtiofsd = "virtiofsd, of Debian 12 in qemu-system-common";
        assert_eq!(package("virtiofsd", "fs"), Some(virtiofsd));
        assert_eq!(package("virtiofsd", "block"), None);
        assert_eq!(package("passt", "net"), Some("passt"));
        assert_eq!(package("vhost-device-rng", "rng"), None);
    }

    #[test]
    fn types_are_those_of_the_conventions() {
        for known in &PROGRAMS {
            assert!(known.device_type.parse::<conventions::DeviceType>().is_ok());
        }
    }
}
