// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Unix socket of another machine, forwarded by ssh(1) to one that only this user can reach.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use conventions::SOCKET_PATH_MAX;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::remote_host::RemoteHost;

/// Why a socket is not forwarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("Failed to create a private folder for the forwarded socket: {0}.")]
    Folder(#[source] io::Error),
    #[error("Failed to prepare for signals: {0}.")]
    Signals(#[source] io::Error),
    #[error("Failed to run ssh: {0}.")]
    Run(#[source] io::Error),
    #[error("ssh to {host} ended before it forwarded the socket ({status}). Try: ssh {host} true")]
    Ended {
        host: RemoteHost,
        status: ExitStatus,
    },
    #[error("ssh to {host} did not forward the socket within {} seconds. Try: ssh {host} true", TIMEOUT.as_secs())]
    Late { host: RemoteHost },
    #[error("ssh cannot forward {0}: its path contains a control character or '${{'.")]
    Path(String),
}

/// How long ssh may take, which may ask for a password.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is checked whether the socket is there: ssh does not tell.
const INTERVAL: Duration = Duration::from_millis(20);
/// The name of the socket here.
const SOCKET: &str = "vnc.sock";

/// A forwarded socket, which exists as long as this value.
#[derive(Debug)]
pub(crate) struct SshForward {
    ssh: Child,
    folder: TempDir,
    children: Children,
}

/// The processes that a signal ends before this one.
#[derive(Clone, Debug, Default)]
struct Children(Arc<Mutex<Vec<Pid>>>);

impl SshForward {
    /// Starts ssh and waits until the socket is there. It can be connected to before anything is known of the socket of
    /// the other machine: who connects then hears whether that one answers.
    pub(crate) fn start(host: &RemoteHost, remote: &str) -> Result<Self, ForwardError> {
        let folder = private_folder().map_err(ForwardError::Folder)?;
        let local = folder.path().join(SOCKET);
        let forward = format!(
            "{}:{}",
            escaped(&local.to_string_lossy())?,
            escaped(remote)?
        );
        let children = Children::default();
        children
            .end_on_signals(folder.path().to_owned())
            .map_err(ForwardError::Signals)?;
        let ssh = Command::new("ssh")
            .args(["-xTN"])
            // A connection of its own: the forwarding of a shared one would outlive this.
            .args(["-S", "none", "-o", "ControlMaster=no"])
            .args(["-o", "ExitOnForwardFailure=yes"])
            .args(["-o", "StreamLocalBindMask=0177"])
            .args(["-L", &forward])
            .args(host.ssh_words())
            .stdin(Stdio::null())
            .spawn()
            .map_err(ForwardError::Run)?;
        children.add(&ssh);
        let mut forward = Self {
            ssh,
            folder,
            children,
        };
        let deadline = Instant::now() + TIMEOUT;
        while !local.exists() {
            if let Some(status) = forward.ssh.try_wait().map_err(ForwardError::Run)? {
                let host = host.clone();
                return Err(ForwardError::Ended { host, status });
            }
            if Instant::now() > deadline {
                return Err(ForwardError::Late { host: host.clone() });
            }
            thread::sleep(INTERVAL);
        }
        Ok(forward)
    }

    /// The path of the socket here.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// Runs a program that uses it to its end.
    pub(crate) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = command.spawn()?;
        self.children.add(&child);
        let status = child.wait();
        self.children.remove(&child);
        status
    }
}

impl Drop for SshForward {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
        self.children.remove(&self.ssh);
    }
}

impl Children {
    /// From now on, a signal to end also ends these processes and deletes the folder.
    fn end_on_signals(&self, folder: PathBuf) -> io::Result<()> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let children = self.clone();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held until the end: no further process starts.
                let children = children.0.lock().unwrap_or_else(PoisonError::into_inner);
                for child in children.iter() {
                    let _ = kill_process(*child, Signal::TERM);
                }
                let _ = std::fs::remove_dir_all(&folder);
                // As a shell says it.
                exit(128 + signal);
            }
        });
        Ok(())
    }

    fn add(&self, child: &Child) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.push(Pid::from_child(child));
    }

    fn remove(&self, child: &Child) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|pid| *pid != Pid::from_child(child));
    }
}

/// A folder that only this user can enter, with a path that leaves room for that of the socket.
fn private_folder() -> io::Result<TempDir> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let place = runtime
        .filter(|folder| folder.is_absolute() && folder.is_dir())
        .unwrap_or_else(env::temp_dir);
    let make = |place: &Path| {
        tempfile::Builder::new()
            .prefix("vhostctl-")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir_in(place)
    };
    let folder = make(&place)?;
    // ssh binds a longer name first.
    let room = SOCKET_PATH_MAX.saturating_sub("/.".len() + SOCKET.len() + 20);
    match folder.path().as_os_str().len() <= room {
        true => Ok(folder),
        false => make(Path::new("/tmp")),
    }
}

/// A path as the option -L has it, where colons separate and %-tokens and variables are expanded.
fn escaped(path: &str) -> Result<String, ForwardError> {
    if path.contains(char::is_control) || path.contains("${") {
        return Err(ForwardError::Path(path.to_owned()));
    }
    Ok(path
        .replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_for_ssh() {
        let text = |path| escaped(path).expect("a path that can be forwarded");
        assert_eq!(text("/run/vnc/vm1.sock"), "/run/vnc/vm1.sock");
        assert_eq!(text("/run/vnc/vm1:1.sock"), r"/run/vnc/vm1\:1.sock");
        assert_eq!(text(r"/a\x2d%h"), r"/a\\x2d%%h");
        for bad in ["/a\nb", "/${HOME}"] {
            assert!(matches!(escaped(bad), Err(ForwardError::Path(_))));
        }
    }

    #[test]
    fn folder_is_for_this_user_alone() {
        let folder = private_folder().expect("a folder");
        let mode = folder.path().metadata().expect("it").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
