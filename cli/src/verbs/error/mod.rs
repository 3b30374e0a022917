// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a verb failed.

mod add;
mod check;
mod console;
mod monitor;

use std::io::ErrorKind;
use std::path::Path;

pub(crate) use add::{AddError, FileError};
pub(crate) use check::CheckError;
pub(crate) use console::ConsoleError;
pub(crate) use monitor::MonitorError;

use crate::exit;

/// Why a verb failed. The messages are whole sentences for people: `main` shows them as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Devices(#[from] crate::devices::Error),
    #[error(transparent)]
    Systemd(#[from] crate::systemd::Error),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("No such backend: {selector}. See 'vhostctl list', or create it with 'vhostctl add'.")]
    NoSuchBackend {
        selector: String,
        /// `status` has an exit status of its own.
        exit_code: u8,
    },
    #[error("{selector} is no input device of the host. See 'vhostctl list --type=input'.")]
    NoInputDevice { selector: String },
    #[error("{vm} has no input device of the host. See 'vhostctl list --type=input'.")]
    NoInputDeviceOfVm { vm: String },
    /// The guest cannot get it.
    #[error("{instance} serves no VM. Its VM gets the device when it is started.")]
    NotRunning { instance: String },
    #[error("Unknown verb: {name}. See 'vhostctl --help'.")]
    NoVerb { name: String },
    #[error("Backends are system units; --user is not supported.")]
    User,
    /// With --host; the verb needs what only its own host has.
    #[error("{verb} does not work with --host. Run it on {host}: {command}")]
    ThisHostOnly {
        verb: &'static str,
        host: String,
        command: String,
    },
    /// A VMM would lose a device, and the user did not confirm it.
    #[error("{losses}\n{advice}")]
    Connected {
        losses: String,
        /// That nothing was changed, and what to do first.
        advice: &'static str,
    },
    #[error("Nothing was changed.")]
    Declined,
    /// The program was replaced, but did not go on with the VM.
    #[error(
        "{instance} was restarted, but does not serve its VM any more: shut the VM down and start it again. See 'vhostctl log \
         {instance}'."
    )]
    DeviceLost { instance: String },
    #[error(
        "{count} more {} not restarted. Once the cause is gone: vhostctl restart --all.",
        if *count == 1 { "program was" } else { "programs were" }
    )]
    NotRestarted { count: usize },
    /// Some of several backends failed; the others are done.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// A unit failed, and its log may say why.
    #[error("{error} Its log:\n{}", log.join("\n"))]
    Logged {
        #[source]
        error: crate::systemd::Error,
        log: Vec<String>,
    },
    /// systemd starts no second socket of a service that runs.
    #[error(
        "{instance} serves a VM without {unit}, which cannot be started now. Shut the VM down, run 'vhostctl restart \
         {instance}', and start the VM again."
    )]
    NoConsoleSocket { instance: String, unit: String },
    #[error(transparent)]
    Add(#[from] AddError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error("Failed to write {path}: {source}.")]
    Picture {
        path: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    NoVmDevice(#[from] crate::vmm::NoVmDevice),
    #[error("Failed to {what} {path}: {source}.{}", advice(source))]
    File {
        what: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("Failed to write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// The exit status; of several errors, that of the first.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchBackend { exit_code, .. } => *exit_code,
            Self::File { source, .. } | Self::Picture { source, .. }
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                exit::DENIED
            }
            Self::Add(error) => error.exit_code(),
            Self::Check(error) => error.exit_code(),
            Self::Console(error) => error.exit_code(),
            Self::Systemd(error) | Self::Logged { error, .. } => error.exit_code(),
            Self::Several(errors) => errors.first().map_or(exit::FAILURE, Self::exit_code),
            _ => exit::FAILURE,
        }
    }

    /// Fails if there are errors, with one or with all of them. What was denied for one and the same reason is one error.
    pub(super) fn several(errors: Vec<Self>) -> Result<(), Self> {
        let mut kept: Vec<(Self, usize)> = Vec::new();
        for error in errors {
            let same = kept.iter_mut().find(|(first, _)| match (first, &error) {
                (Self::Systemd(first), Self::Systemd(error)) => first.is_same_denial(error),
                _ => false,
            });
            match same {
                Some((_, others)) => *others += 1,
                None => kept.push((error, 0)),
            }
        }
        let merged = kept.into_iter().map(|(error, others)| match error {
            Self::Systemd(error) if others > 0 => error.and_others(others).into(),
            error => error,
        });
        let mut errors: Vec<_> = merged.collect();
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Whether it is about one backend, so that the others can go on.
    pub(super) fn is_of_one(&self) -> bool {
        match self {
            Self::NoSuchBackend { .. }
            | Self::NoInputDevice { .. }
            | Self::NoInputDeviceOfVm { .. }
            | Self::NotRunning { .. }
            | Self::DeviceLost { .. }
            | Self::NoConsoleSocket { .. }
            | Self::File { .. }
            | Self::Logged { .. } => true,
            Self::Systemd(error) => error.is_of_unit(),
            _ => false,
        }
    }

    /// An error about a file.
    pub(super) fn file(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            what,
            path: path.display().to_string(),
            source,
        }
    }
}

fn lines(errors: &[Error]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What to do about a file that cannot be written.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            " This changes files in /etc/systemd/system. Run it as root (sudo)."
        }
        _ => "",
    }
}
