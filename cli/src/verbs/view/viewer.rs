// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs that show a VNC server, and how each takes a Unix socket.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of viewers, the preferred first: TigerVNC's in Debian and elsewhere, and that of gtk-vnc. remote-viewer 11.0 opens
/// no Unix socket with VNC.
const NAMES: [&str; 3] = ["xtigervncviewer", "vncviewer", "gvncviewer"];

/// A program that shows a VNC server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Viewer {
    pub program: PathBuf,
}

impl Viewer {
    /// The viewer that the user wants.
    pub(super) fn named(program: &OsStr) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// The preferred one of those that are installed, in folders as of PATH.
    pub(super) fn installed(path: &OsStr) -> Option<Self> {
        let folders: Vec<_> = env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .collect();
        let programs = NAMES
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        let program = programs
            .into_iter()
            .find(|program| takes_sockets(program))?;
        Some(Self { program })
    }

    /// The command that shows the server behind a socket.
    pub(super) fn command(&self, socket: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let name = self.program.file_name().unwrap_or_default();
        command.arg(match name.to_string_lossy().as_ref() {
            "remote-viewer" => uri(socket),
            _ => socket.into(),
        });
        command
    }
}

/// Whether this is a program that takes the path of a socket: Debian's `vncviewer` may be another than TigerVNC's.
fn takes_sockets(program: &Path) -> bool {
    let Ok(real) = fs::canonicalize(program) else {
        return false;
    };
    let runs =
        fs::metadata(&real).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    let name = |path: &Path| path.file_name().map(OsStr::to_owned).unwrap_or_default();
    let is_alternative = name(&real) != name(program);
    runs && (!is_alternative || name(&real).to_string_lossy().contains("tiger"))
}

/// The URI of a socket.
fn uri(socket: &Path) -> OsString {
    let mut uri = "vnc+unix://".to_owned();
    for byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' | b':' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(programs: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for program in programs {
            let path = folder.path().join(program);
            fs::write(&path, "").expect("a program");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        folder
    }

    fn found(folder: &tempfile::TempDir) -> Option<String> {
        let viewer = Viewer::installed(folder.path().as_os_str())?;
        let name = viewer.program.file_name().expect("a name");
        Some(name.to_string_lossy().into_owned())
    }

    #[test]
    fn viewers_that_take_sockets_are_found_in_their_order() {
        assert_eq!(found(&folder(&["remote-viewer", "vinagre"])), None);
        let all = folder(&["gvncviewer", "vncviewer", "xtigervncviewer"]);
        assert_eq!(found(&all).as_deref(), Some("xtigervncviewer"));
        let two = folder(&["gvncviewer", "vncviewer"]);
        assert_eq!(found(&two).as_deref(), Some("vncviewer"));
        // Of Debian's alternatives.
        let other = folder(&["gvncviewer", "xtightvncviewer"]);
        let link = other.path().join("vncviewer");
        symlink(other.path().join("xtightvncviewer"), &link).expect("a link");
        assert_eq!(found(&other).as_deref(), Some("gvncviewer"));
        let tiger = folder(&["old-tigervnc"]);
        symlink("old-tigervnc", tiger.path().join("vncviewer")).expect("a link");
        assert_eq!(found(&tiger).as_deref(), Some("vncviewer"));
        // What nobody can run.
        let plain = folder(&["gvncviewer"]);
        let path = plain.path().join("gvncviewer");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("its mode");
        assert_eq!(found(&plain), None);
    }

    #[test]
    fn each_viewer_takes_the_socket_in_its_way() {
        let argument = |program: &str, socket: &str| {
            let command = Viewer::named(OsStr::new(program)).command(Path::new(socket));
            let arguments: Vec<_> = command.get_args().collect();
            arguments
                .join(OsStr::new(" "))
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(argument("/opt/my-viewer", "/run/a.sock"), "/run/a.sock");
        assert_eq!(
            argument("remote-viewer", "/run/vm1:1 %.sock"),
            "vnc+unix:///run/vm1:1%20%25.sock"
        );
    }
}
