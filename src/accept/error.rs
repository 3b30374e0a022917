// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What keeps a connection from being served.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use conventions::FIRST_PASSED_FD;

use crate::backend::ForwardError;

/// How long a program may take to listen.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);

/// Why no connection is served, or why it ended before the front-end disconnected.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(
        "{0:?} is not the absolute path of a program, such as /usr/bin/passt; see vhost-user-accept --help"
    )]
    Usage(OsString),
    #[error("no socket to accept from: start it by socket activation")]
    NoSocket,
    #[error("{0} sockets were passed (LISTEN_FDS), one is needed")]
    Several(usize),
    #[error("file descriptor {FIRST_PASSED_FD} is not a listening Unix stream socket")]
    NotListening,
    #[error("cannot accept a connection: {0}")]
    Accept(#[source] io::Error),
    #[error("cannot pass the connection on as file descriptor {FIRST_PASSED_FD}: {0}")]
    Pass(#[source] io::Error),
    #[error(
        "cannot run {}: {error}{}",
        program.display(),
        if error.kind() == io::ErrorKind::NotFound { "; install what provides it" } else { "" }
    )]
    Run {
        program: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{} does not listen at its --socket-path within {} s", program.display(), START_LIMIT.as_secs())]
    Late { program: PathBuf },
    #[error("cannot connect to {}: {error}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{} ended: {status}", program.display())]
    Ended {
        program: PathBuf,
        status: ExitStatus,
    },
    #[error("{} closed the connection", program.display())]
    Closed { program: PathBuf },
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("cannot wait for {}: {error}", program.display())]
    Wait {
        program: PathBuf,
        #[source]
        error: io::Error,
    },
}
