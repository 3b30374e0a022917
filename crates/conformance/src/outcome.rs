// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was seen of a backend.

use std::io;

use rustix::io::Errno;

/// What a point found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend does what is asked; with what was seen.
    Holds(String),
    /// The backend does not; with what was seen.
    Fails(String),
    /// It is not about this backend; with the reason.
    NotTried(String),
    /// It is, and could not be tried to the end: the time was over; with the reason.
    Unfinished(String),
    /// It is, and the check itself failed: its descriptors, memory or disk ran out; with the error.
    CheckFailed(String),
}

impl Outcome {
    /// What was seen, or why nothing was tried.
    #[must_use]
    pub fn seen(&self) -> &str {
        match self {
            Self::Holds(seen)
            | Self::Fails(seen)
            | Self::NotTried(seen)
            | Self::Unfinished(seen)
            | Self::CheckFailed(seen) => seen,
        }
    }
}

/// Why a point does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The backend does not do what is asked.
    Fails(String),
    /// It is not about this backend.
    NotTried(String),
    /// The time was over before it was tried to the end.
    Unfinished(String),
    /// The check itself failed.
    CheckFailed(String),
}

/// What the check does for itself, as the front-end's crate names it.
const OWN: [&str; 9] = [
    "memfd_create",
    "ftruncate of",
    "dup of",
    "making an eventfd",
    "a folder",
    "binding",
    "socketpair",
    "pidfd_open",
    "O_NONBLOCK",
];

impl From<frontend::Error> for Flaw {
    /// What the backend did, unless the check's own memory, disk or descriptors ran out.
    fn from(error: frontend::Error) -> Self {
        let is_own = match &error {
            frontend::Error::Io { what, source } => {
                let errno = Errno::from_io_error(source);
                let is_short = matches!(
                    errno,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM | Errno::DQUOT)
                );
                let no_process = errno == Some(Errno::AGAIN) && what.starts_with("starting");
                is_short || no_process || OWN.iter().any(|own| what.starts_with(own))
            }
            _ => false,
        };
        match is_own {
            true => Self::own(&error),
            false => Self::Fails(error.to_string()),
        }
    }
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        Self::own(&error)
    }
}

impl From<Errno> for Flaw {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl Flaw {
    fn own(error: &dyn std::error::Error) -> Self {
        Self::CheckFailed(format!("the check itself failed: {error}"))
    }
}

/// What a point's function gives: what was seen of a backend that does what is asked, or the flaw.
pub type Seen = Result<String, Flaw>;

pub(crate) fn fails<T>(seen: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Fails(seen.into()))
}

pub(crate) fn unfinished<T>(why: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Unfinished(why.into()))
}

pub(crate) fn not_tried<T>(why: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::NotTried(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_errors_are_no_faults_of_the_backend() {
        let flaw = |what: &'static str, errno: Errno| {
            Flaw::from(frontend::Error::Io {
                what: what.into(),
                source: errno.into(),
            })
        };
        for (what, errno) in [
            ("memfd_create", Errno::PERM),
            ("receiving a vhost-user message", Errno::MFILE),
            ("starting /bin/x", Errno::AGAIN),
        ] {
            assert!(matches!(flaw(what, errno), Flaw::CheckFailed(_)), "{what}");
        }
        for (what, errno) in [
            ("receiving a vhost-user message", Errno::CONNRESET),
            ("starting /bin/x", Errno::ACCESS),
        ] {
            assert!(matches!(flaw(what, errno), Flaw::Fails(_)), "{what}");
        }
    }
}
