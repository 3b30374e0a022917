// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The text by which a program tells the service manager whether a front-end is connected (`STATUS=` of
//! sd_notify(3)), and from which vhostctl reads it.

use std::fmt;

const WAITING: &str = "waiting for a front-end on ";
const CONNECTED: &str = "a front-end is connected";
const NEXT: &str = ", another waits (";
const DETAIL: &str = ": ";

/// What a program says of its front-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEndStatus<'a> {
    /// None is connected.
    Waiting {
        /// Where the program listens.
        place: &'a str,
    },
    /// One is connected.
    Connected {
        /// Another one that waits until this one disconnects.
        next: Option<Peer>,
        /// What the device says, such as the size of the screen; may be empty.
        detail: &'a str,
    },
}

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id.
    pub pid: u32,
    /// The user id it connected with; none where the program, in a user namespace, cannot see it.
    pub uid: Option<u32>,
}

impl fmt::Display for FrontEndStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { place } => write!(f, "{WAITING}{place}"),
            Self::Connected { next, detail } => {
                f.write_str(CONNECTED)?;
                // Before the detail, which may hold a name that somebody else has chosen.
                if let Some(peer) = next {
                    write!(f, "{NEXT}{peer})")?;
                }
                if !detail.is_empty() {
                    write!(f, "{DETAIL}{detail}")?;
                }
                Ok(())
            }
        }
    }
}

impl<'a> FrontEndStatus<'a> {
    /// Reads a program's text. None if it says nothing of a front-end, as the texts of other programs.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(place) = text.strip_prefix(WAITING) {
            return Some(Self::Waiting { place });
        }
        let rest = text.strip_prefix(CONNECTED)?;
        let (next, rest) = match rest.strip_prefix(NEXT) {
            Some(rest) => {
                let (peer, rest) = rest.split_once(')')?;
                (Some(Peer::parse(peer)?), rest)
            }
            None => (None, rest),
        };
        let detail = match rest {
            "" => "",
            rest => rest.strip_prefix(DETAIL)?,
        };
        Some(Self::Connected { next, detail })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "pid {}, uid {uid}", self.pid),
            None => write!(f, "pid {}", self.pid),
        }
    }
}

impl Peer {
    fn parse(text: &str) -> Option<Self> {
        let (pid, uid) = match text.strip_prefix("pid ")?.split_once(", uid ") {
            Some((pid, uid)) => (pid, Some(uid.parse().ok()?)),
            None => (text.strip_prefix("pid ")?, None),
        };
        let pid = pid.parse().ok()?;
        Some(Self { pid, uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_read_as_it_was_written() {
        let peers = [
            None,
            Some(Peer {
                pid: 4711,
                uid: None,
            }),
            Some(Peer {
                pid: 1,
                uid: Some(64055),
            }),
        ];
        let details = [
            "",
            "1280x800 + 640x480, virgl",
            // The name of an input device.
            "the guest has \"x, another waits (pid 1, uid 0)\": )",
        ];
        for next in peers {
            for detail in details {
                let status = FrontEndStatus::Connected { next, detail };
                assert_eq!(FrontEndStatus::parse(&status.to_string()), Some(status));
            }
        }
        let status = FrontEndStatus::Waiting {
            place: "/run/vhost-user/gpu/vm1.sock",
        };
        assert_eq!(FrontEndStatus::parse(&status.to_string()), Some(status));
    }

    #[test]
    fn texts_of_other_programs_say_nothing_of_a_front_end() {
        for text in [
            "",
            "Processing requests...",
            "a front-end is connected!",
            "a front-end is connected, another waits (pid x)",
            "a front-end is connected, another waits (pid 1",
        ] {
            assert_eq!(FrontEndStatus::parse(text), None, "{text:?}");
        }
    }
}
