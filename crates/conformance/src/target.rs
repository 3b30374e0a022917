// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which program is checked, and with which arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use conventions::DeviceType;

/// In an argument: the path at which the program is to listen.
pub(crate) const SOCKET: &str = "{socket}";
/// In an argument: an empty folder for the program.
pub(crate) const FOLDER: &str = "{folder}";
/// In an argument: a file of 1 MiB, the disk of a block device.
pub(crate) const FILE: &str = "{file}";

/// In an argument: the path at which the program is to listen for the events of its input device.
pub(crate) const EVENTS: &str = "{events}";

/// A descriptor of the program (vhost-user.json: VHostUserBackend).
#[derive(Clone, Debug)]
pub struct DescriptorFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The folders that are searched for descriptors, the most specific first.
    pub folders: Vec<PathBuf>,
}

/// The program to check.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its path.
    pub program: PathBuf,
    /// The arguments that it needs beside the socket. `{socket}` in one stands for the path at which it is to listen,
    /// for a program without `--socket-path`; `{folder}` for an empty folder, `{file}` for a file of 1 MiB, `{events}`
    /// for the path of a stream socket at which the program takes the events of its input device from the check: 8 bytes
    /// each, as in a virtqueue (virtio 1.2, 5.8.6). Where a point starts the program without that socket, an argument
    /// with `{socket}` is left out, and if it begins with no '-', the option before it too.
    pub args: Vec<OsString>,
    /// Environment variables of the program, beside those of the check itself.
    pub env: Vec<(OsString, OsString)>,
    /// The type of its device, where its capabilities do not tell.
    pub device_type: Option<DeviceType>,
    /// The descriptor by which it was found.
    pub descriptor: Option<DescriptorFile>,
}

impl Target {
    /// A program without arguments, of the type that its capabilities tell.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            device_type: None,
            descriptor: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the type of device.
    #[must_use]
    pub fn of_type(mut self, device_type: DeviceType) -> Self {
        self.device_type = Some(device_type);
        self
    }

    /// Sets the descriptor.
    #[must_use]
    pub fn descriptor(mut self, descriptor: DescriptorFile) -> Self {
        self.descriptor = Some(descriptor);
        self
    }

    /// Whether the arguments say where to listen.
    pub(crate) fn places_socket(&self) -> bool {
        self.names(SOCKET)
    }

    /// Whether this placeholder is in one of the arguments.
    pub(crate) fn names(&self, placeholder: &str) -> bool {
        self.args.iter().any(|arg| contains(arg, placeholder))
    }

    /// The type by the program's name, as of virtiofsd or vhost-device-rng.
    pub(crate) fn type_by_name(&self) -> Option<DeviceType> {
        let name = self.program.file_name()?.to_str()?;
        match name {
            "virtiofsd" => return Some(DeviceType::Fs),
            "passt" | "passt.avx2" => return Some(DeviceType::Net),
            "qemu-storage-daemon" => return Some(DeviceType::Block),
            _ => {}
        }
        let device = ["vhost-user-", "vhost-device-"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))?;
        match device {
            "blk" => Some(DeviceType::Block),
            device => device.parse().ok(),
        }
    }
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a> {
    pub(crate) socket: Option<&'a Path>,
    pub(crate) folder: &'a Path,
    pub(crate) file: &'a Path,
    pub(crate) events: &'a Path,
}

/// The arguments with the placeholders replaced; those with the socket's only if there is one. Where the socket's is the
/// value of an option before it (`-s {socket}`, `--export addr.path={socket}`) that option goes with it.
pub(crate) fn arguments(args: &[OsString], paths: Paths<'_>) -> Vec<OsString> {
    let is_option = |arg: &OsStr| arg.as_bytes().starts_with(b"-") && arg != "--";
    let names_socket = |arg: &OsStr| contains(arg, SOCKET);
    let is_dropped = |at: usize, arg: &OsStr| {
        let next = args.get(at + 1);
        let has_value = is_option(arg) && !contains(arg, "=");
        names_socket(arg)
            || has_value && next.is_some_and(|next| names_socket(next) && !is_option(next))
    };
    let placed = args
        .iter()
        .enumerate()
        .filter(|(at, arg)| paths.socket.is_some() || !is_dropped(*at, arg))
        .map(|(_, arg)| arg);
    let all = [
        (SOCKET, paths.socket.unwrap_or(Path::new(""))),
        (FOLDER, paths.folder),
        (FILE, paths.file),
        (EVENTS, paths.events),
    ];
    placed
        .map(|arg| {
            all.iter().fold(arg.clone(), |arg, (placeholder, path)| {
                replace(&arg, placeholder, path)
            })
        })
        .collect()
}

fn contains(arg: &OsStr, word: &str) -> bool {
    let (arg, word) = (arg.as_bytes(), word.as_bytes());
    arg.windows(word.len()).any(|part| part == word)
}

fn replace(arg: &OsStr, word: &str, by: &Path) -> OsString {
    let (mut rest, word) = (arg.as_bytes(), word.as_bytes());
    let mut replaced = Vec::new();
    while let Some(at) = rest.windows(word.len()).position(|part| part == word) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(by.as_os_str().as_bytes());
        rest = &rest[at + word.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_paths() {
        let args = ["--a={folder}/x:{file}", "{socket}", "--e={events}"].map(OsString::from);
        let without_socket = Paths {
            socket: None,
            folder: Path::new("/f"),
            file: Path::new("/d"),
            events: Path::new("/e"),
        };
        let with_socket = Paths {
            socket: Some(Path::new("/s")),
            ..without_socket
        };
        let with = arguments(&args, with_socket);
        assert_eq!(with, ["--a=/f/x:/d", "/s", "--e=/e"]);
        let without = arguments(&args, without_socket);
        assert_eq!(without, ["--a=/f/x:/d", "--e=/e"]);
    }

    #[test]
    fn option_goes_with_its_value() {
        let paths = Paths {
            socket: None,
            folder: Path::new("/f"),
            file: Path::new("/d"),
            events: Path::new("/e"),
        };
        for (args, left) in [
            (&["-v", "-s", "{socket}", "-d"][..], &["-v", "-d"][..]),
            (&["-v", "-s{socket}"], &["-v"]),
            (&["-v", "--socket={socket}", "x"], &["-v", "x"]),
            (
                &[
                    "--blockdev",
                    "file={file}",
                    "--export",
                    "id=e,path={socket}",
                ],
                &["--blockdev", "file=/d"],
            ),
            (&["--mode=a", "{socket}"], &["--mode=a"]),
            (&["--", "{socket}"], &["--"]),
        ] {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            assert_eq!(arguments(&args, paths), left, "{args:?}");
        }
    }

    #[test]
    fn type_is_guessed_by_the_name() {
        for (program, device_type) in [
            ("/usr/libexec/virtiofsd", Some(DeviceType::Fs)),
            ("vhost-device-rng", Some(DeviceType::Rng)),
            ("/x/vhost-user-blk", Some(DeviceType::Block)),
            ("/bin/sh", None),
        ] {
            assert_eq!(Target::program(program).type_by_name(), device_type);
        }
    }
}
