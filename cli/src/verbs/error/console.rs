// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of `view` and `screenshot`.

use std::io;
use std::path::PathBuf;

use conventions::ScreenState;

use crate::exit;
use crate::ssh_forward::ForwardError;

/// Why a VM's screen cannot be seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    #[error("{vm} has no console. Add one: vhostctl add console {vm} --now")]
    None { vm: String },
    #[error(
        "{unit} is not installed, or systemd has not loaded it yet (systemctl daemon-reload). It is in the package \
         {package}."
    )]
    NotInstalled { unit: String, package: &'static str },
    #[error(
        "The console of {vm} does not listen: {unit} is {state}. Start it: vhostctl start {vm}"
    )]
    NotListening {
        vm: String,
        unit: String,
        state: String,
    },
    #[error("{vm} has no head {head}: its console has {}.", heads(*last))]
    NoHead {
        vm: String,
        head: usize,
        last: usize,
    },
    #[error(
        "Permission to connect to {path} was denied ({access}). Run it as root (sudo), or let others view it: vhostctl \
         add console {vm} --viewer-user=USER --force (repeat its other options)."
    )]
    Denied {
        vm: String,
        path: String,
        access: String,
    },
    #[error("Failed to connect to {path}: {source}. See 'vhostctl status {vm}'.")]
    Connect {
        vm: String,
        path: String,
        source: io::Error,
    },
    #[error(
        "The console of {vm} closed the connection before it answered. Its log says why: vhostctl log {vm}:vnc"
    )]
    Closed { vm: String },
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(
        "The console of {vm} does not answer on {host}. See 'vhostctl -H {host} status {vm}': the user that ssh connects \
         as must be allowed to connect to {path} ('vhostctl add console {vm} --viewer-user=USER --force' there, with its other options)."
    )]
    NoAnswer {
        vm: String,
        host: String,
        path: String,
    },
    #[error(
        "There is no display to show {vm} on: neither DISPLAY nor WAYLAND_DISPLAY is set. For a picture: vhostctl \
         screenshot {vm}. From a machine with a display: vhostctl -H HOST view {vm}, or\n  \
         ssh -fN -L /tmp/{vm}.sock:{path} HOST\n  vncviewer /tmp/{vm}.sock"
    )]
    NoDisplay { vm: String, path: String },
    #[error(
        "No VNC viewer that connects to a Unix socket is installed. Debian has TigerVNC's in the package tigervnc-viewer, \
         and gvncviewer in the package of that name. For another one use --viewer=PROGRAM."
    )]
    NoViewer,
    #[error("Failed to run {}: {source}.", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("A picture is not written to a terminal. Name a file, or redirect the output.")]
    Terminal,
    #[error("The console of {vm} cannot be understood: {source}.")]
    Protocol {
        vm: String,
        source: rfb::client::ClientError,
    },
    #[error("There is no screen to show: {}.", why(*state, *front_end, vm))]
    NoScreen {
        vm: String,
        state: ScreenState,
        /// Whether a VM uses the GPU, if that is known.
        front_end: Option<bool>,
    },
    #[error("Failed to make a PNG of the screen: {0}.")]
    Png(#[from] png::EncodingError),
}

impl ConsoleError {
    /// The exit status, as of systemctl.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::None { .. } | Self::NotInstalled { .. } => exit::NOT_FOUND,
            Self::Denied { .. } => exit::DENIED,
            Self::NoScreen { .. } => exit::NOT_RUNNING,
            _ => exit::FAILURE,
        }
    }
}

fn heads(last: usize) -> String {
    match last {
        0 => "only head 0".to_owned(),
        last => format!("heads 0 to {last}"),
    }
}

fn why(state: ScreenState, front_end: Option<bool>, vm: &str) -> String {
    match state {
        ScreenState::On => "it came too late".to_owned(),
        ScreenState::Unreachable => {
            format!("the console does not reach the GPU of {vm}. See 'vhostctl status {vm}'")
        }
        ScreenState::Waiting => format!("the guest of {vm} has not begun to draw"),
        ScreenState::Off => match front_end {
            Some(true) => {
                format!("the guest of {vm} has not begun to draw, or has switched the display off")
            }
            Some(false) => format!("{vm} is off"),
            None => format!(
                "{vm} is off, or its guest has not begun to draw or has switched the display off"
            ),
        },
        ScreenState::TooLarge => "it is too large for the console".to_owned(),
    }
}
