// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of `add`.

use std::io;
use std::path::PathBuf;

use crate::descriptors::ProbeError;
use crate::descriptors::known::VersionError;
use crate::exit;
use crate::instance::NameError;
use crate::values::ValueError;

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error("Failed to add the backend: {0}.")]
    Name(#[from] NameError),
    #[error("Failed to add the backend: {0}.")]
    Value(#[from] ValueError),
    /// Options that do not fit the type or each other.
    #[error("{0}")]
    Usage(String),
    #[error("No such device: {text}. See 'vhostctl list-devices --type={kind}'.")]
    NoDevice { text: String, kind: &'static str },
    #[error("This host has no render node.")]
    NoRenderNode,
    #[error("'{text}' matches several devices. Use one of these paths:\n  {}{note}", candidates.join("\n  "))]
    Ambiguous {
        text: String,
        candidates: Vec<String>,
        note: &'static str,
    },
    #[error(
        "Several devices have the numbers {ids}. Add the serial number, as in --match={ids}:SERIAL, or use one of these paths without --match:\n  {}",
        candidates.join("\n  ")
    )]
    NeedsSerial {
        ids: String,
        candidates: Vec<String>,
    },
    #[error(
        "Several devices have the numbers {ids}, and nothing else tells them apart. Use one of these paths without --match:\n  {}",
        candidates.join("\n  ")
    )]
    Twins {
        ids: String,
        candidates: Vec<String>,
    },
    #[error(
        "{device} is already assigned to {owner}. Run 'vhostctl remove {owner}' first, or use --force to share it."
    )]
    Assigned { device: String, owner: String },
    #[error(
        "{device} is the last keyboard of seat0: while {vm} runs, nobody could type on this host. Use \
         --grab-toggle=ctrl-ctrl to get it back with both Ctrl keys, --no-grab to share it with the host, or --force \
         to assign it anyway."
    )]
    LastKeyboard { device: String, vm: String },
    #[error(
        "{unit} has other settings already, {settings}. Use --force to replace them, or run 'vhostctl remove {selector}' first."
    )]
    Exists {
        unit: String,
        selector: String,
        /// Where they are.
        settings: String,
    },
    #[error(
        "{instance} is {device} already, and the console's own device needs this name. Run 'vhostctl remove {instance}' \
         and add it again with another --name=, or use --force to replace it."
    )]
    ConsoleName { instance: String, device: String },
    #[error(
        "{instance} serves a VM without a socket for the console, and systemd starts none while it does. Shut the VM \
         down first. Without --now, the socket is started with the VM's next start."
    )]
    RunsWithoutConsole { instance: String },
    #[error(
        "{unit} is not installed, or systemd has not loaded it yet (systemctl daemon-reload). It is in the package \
         {package}."
    )]
    NotInstalled { unit: String, package: &'static str },
    #[error(
        "No usable backend '{name}' of type {device_type} is installed.{} See 'vhostctl list-backends'.",
        packages(*package)
    )]
    NoUsableProgram {
        name: String,
        device_type: String,
        /// Debian's, if it is known.
        package: Option<&'static str>,
    },
    #[error("'{name}' matches several backends. Use one of these names:\n{}", candidates.join("\n"))]
    AmbiguousProgram {
        name: String,
        candidates: Vec<String>,
    },
    #[error("{} {source}.", program.display())]
    UnusableProgram {
        program: PathBuf,
        source: VersionError,
    },
    #[error(
        "{} would run as root, but other users can replace it: {why}. Use --run-as=root to run it anyway.",
        program.display()
    )]
    OthersProgram { program: PathBuf, why: String },
    #[error("{unit} does not name vhost-user-accept (Accept=). Install the units again.")]
    NoAcceptProgram { unit: String },
    #[error("{} cannot be used: {source}.", path.display())]
    UnusableFile { path: PathBuf, source: FileError },
    #[error(
        "{program} does not support OpenGL: its capabilities do not list 'virgl'. Without --virgl the guest gets a 2D \
         GPU."
    )]
    NoVirgl { program: String },
    #[error("{program} does not support OpenGL: {program} --print-capabilities {source}.")]
    NoCapabilities { program: String, source: ProbeError },
}

/// Why a program cannot serve a file or folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the path must be absolute")]
    Relative,
    #[error("{0}")]
    Metadata(#[source] io::Error),
    #[error("it is not a folder")]
    NotFolder,
    #[error("it is neither a file nor a block device")]
    NotDisk,
    #[error("a service with a dynamic user has its own /tmp and /var/tmp. Move the file elsewhere")]
    Temporary,
    #[error("a dynamic user cannot {verb} it. --run-as={owner} runs the backend as its owner")]
    Access { verb: &'static str, owner: String },
    #[error(
        "a dynamic user cannot enter {}. --run-as={owner} runs the backend as its owner", folder.display()
    )]
    Folder { folder: PathBuf, owner: String },
}

fn packages(package: Option<&str>) -> String {
    package.map_or_else(String::new, |package| {
        format!(" Debian has it in the package {package}.")
    })
}

impl AddError {
    /// The exit status, as of systemctl.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotInstalled { .. } => exit::NOT_FOUND,
            _ => exit::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_where_they_are_known() {
        let missing = |package| AddError::NoUsableProgram {
            name: "passt".to_owned(),
            device_type: "net".to_owned(),
            package,
        };
        let rest = "No usable backend 'passt' of type net is installed.";
        let see = "See 'vhostctl list-backends'.";
        assert_eq!(missing(None).to_string(), format!("{rest} {see}"));
        assert_eq!(
            missing(Some("passt")).to_string(),
            format!("{rest} Debian has it in the package passt. {see}")
        );
    }
}
