// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of a front-end.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the front-end could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend did not do it in time.
    #[error("waited {} in vain for {what}", rounded(*limit))]
    Timeout {
        /// What was waited for.
        what: Cow<'static, str>,
        /// How long.
        limit: Duration,
    },
    /// The other end is gone.
    #[error("the other end closed the socket while {what}")]
    Closed {
        /// What was being done.
        what: Cow<'static, str>,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: Cow<'static, str>,
        /// Why it failed.
        source: io::Error,
    },
    /// The other end does not keep to the protocol.
    #[error("the backend breaks the protocol: {0}")]
    Protocol(String),
    /// The backend answered a request with an error.
    #[error("the backend refused {request}: {value:#x}")]
    Refused {
        /// The request's name.
        request: String,
        /// The number in its answer, never 0.
        value: u64,
    },
    /// An address outside the guest's memory, or none left to allocate.
    #[error("guest memory: {0}")]
    Memory(String),
    /// The queue has no descriptor free for the chain.
    #[error("the queue has {free} free descriptors, the chain needs {wanted}")]
    QueueFull {
        /// Descriptors that are free.
        free: usize,
        /// Descriptors that the chain needs.
        wanted: usize,
    },
    /// The device answered a command with something else than was expected.
    #[error("{command}: {answer} instead of {expected}")]
    Answer {
        /// The command's name.
        command: &'static str,
        /// What the device answered.
        answer: String,
        /// What should have come.
        expected: String,
    },
}

/// A time as people say it, to the tenth of a second.
fn rounded(time: Duration) -> String {
    match time >= Duration::from_millis(50) {
        true => format!("{:.1} s", time.as_secs_f64()),
        false => format!("{} ms", time.as_millis()),
    }
}

impl Error {
    /// Where it was waited in vain, this is added to what was waited for.
    #[must_use]
    pub fn waiting_in(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Timeout { what, limit } => Self::Timeout {
                what: format!("{what} {place}").into(),
                limit,
            },
            other => other,
        }
    }

    pub(crate) fn io(what: impl Into<Cow<'static, str>>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn os(what: impl Into<Cow<'static, str>>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            what: what.into(),
            source: errno.into(),
        }
    }

    /// Whether the backend did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the other end closed the socket.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl From<vm_memory::GuestMemoryError> for Error {
    fn from(e: vm_memory::GuestMemoryError) -> Self {
        Self::Memory(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rounded_and_the_place_is_named() {
        let error = |time| Error::Timeout {
            what: "the device to use a chain".into(),
            limit: Duration::from_micros(time),
        };
        assert_eq!(
            error(2_951_234).waiting_in("of virtqueue 1").to_string(),
            "waited 3.0 s in vain for the device to use a chain of virtqueue 1"
        );
        assert!(error(4_321).to_string().starts_with("waited 4 ms in vain"));
    }
}
