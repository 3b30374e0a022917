// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of `check`.

use std::io;
use std::path::PathBuf;

use crate::exit;

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(
        "No backend '{0}' is installed. See 'vhostctl list-backends', or give the path of a program."
    )]
    NoProgram(String),
    #[error("{}: {source}.", path.display())]
    Program { path: PathBuf, source: io::Error },
    #[error("Failed to start {program}: {error}. Is it a program that can be executed?")]
    Start { program: String, error: String },
    #[error("Failed to prepare for signals: {0}.")]
    Signals(#[source] io::Error),
    #[error("Nothing can be told of the program: {0}.")]
    Own(String),
    #[error("No point is called '{0}'. See 'vhostctl check --list'.")]
    NoPoint(String),
}

impl CheckError {
    /// The exit status.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Own(_) | Self::Signals(_) => exit::UNFINISHED,
            Self::NoProgram(_) | Self::Program { .. } => exit::NOT_FOUND,
            Self::NoPoint(_) | Self::Start { .. } => exit::FAILURE,
        }
    }
}
