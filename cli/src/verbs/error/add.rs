//! Why `add` added nothing.

use std::path::PathBuf;

use crate::exit;
use crate::instance::NameError;
use crate::values::ValueError;

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error("Failed to add it: {0}.")]
    Name(#[from] NameError),
    #[error("Failed to add it: {0}.")]
    Value(#[from] ValueError),
    #[error("{0}")]
    Usage(String),
    #[error("No such device: {text}. See 'vhostctl list-devices --type={kind}'.")]
    NoDevice { text: String, kind: &'static str },
    #[error("This host has no render node.")]
    NoRenderNode,
    #[error("'{text}' could be any of these; take one of the paths:\n{}", candidates.join("\n"))]
    Ambiguous {
        text: String,
        candidates: Vec<String>,
    },
    #[error(
        "{device} is already assigned to {owner}. Run 'vhostctl remove {owner}' first, or use --force to share it."
    )]
    Assigned { device: String, owner: String },
    #[error(
        "{device} is the last keyboard of seat0: while {vm} runs, nobody could type on this host. --no-grab leaves it \
         to the host as well; --force takes it all the same."
    )]
    LastKeyboard { device: String, vm: String },
    #[error(
        "{unit} has other settings already, in {file}. Use --force to replace them, or run 'vhostctl remove {selector}' first."
    )]
    Exists {
        unit: String,
        selector: String,
        file: String,
    },
    #[error("{unit} is not installed, or systemd was not told (systemctl daemon-reload).")]
    NotInstalled { unit: String },
    #[error(
        "No usable backend '{name}' of type {device_type} is installed. See 'vhostctl list-backends'."
    )]
    NoUsableBackend { name: String, device_type: String },
    #[error("'{name}' could be any of these backends; take the name of one:\n{}", candidates.join("\n"))]
    AmbiguousBackend {
        name: String,
        candidates: Vec<String>,
    },
    #[error("{} {problem}.", program.display())]
    UnusableProgram { program: PathBuf, problem: String },
    #[error(
        "{} would run as root, and root alone does not decide what it is: {why}. Give --run-as=root if that is meant.",
        program.display()
    )]
    OthersProgram { program: PathBuf, why: String },
    #[error("{unit} does not say where vhost-user-accept is: install the units again.")]
    NoAcceptProgram { unit: String },
    #[error("{} cannot be used: {problem}.", path.display())]
    UnusableFile { path: PathBuf, problem: String },
    #[error("{program} has no 3D: {why}")]
    NoVirgl { program: String, why: String },
}

impl AddError {
    /// The exit status, as systemctl's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotInstalled { .. } => exit::NOT_FOUND,
            _ => exit::FAILURE,
        }
    }
}
