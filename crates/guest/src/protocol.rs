// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The line protocol between the host and the guest's agent.
//!
//! The host sends `ID COMMAND...`. The guest answers any number of output lines
//! `ID| TEXT` and then one status line, `ID ok` or `ID error: TEXT`. Requests run
//! side by side: the ID, chosen by the host, tells their answers apart, so a
//! command that hangs in the kernel does not confuse the next one. Once after
//! each boot the guest sends [`READY`].

use std::fmt;

/// What the agent says when it begins to listen.
pub const READY: &str = "ready";

/// One line from the guest that belongs to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A line of output.
    Line(String),
    /// The command is done.
    Ok,
    /// The command failed, and why.
    Error(String),
}

/// An answer and the request it belongs to, as one line of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request's number.
    pub id: u64,
    /// What is said about it.
    pub answer: Answer,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        // A line break would end the message early.
        match &self.answer {
            Answer::Line(text) => write!(f, "{id}| {}", text.replace(['\n', '\r'], " ")),
            Answer::Ok => write!(f, "{id} ok"),
            Answer::Error(text) => write!(f, "{id} error: {}", text.replace(['\n', '\r'], " ")),
        }
    }
}

impl Message {
    /// Reads one line; `None` if it is not a message of this protocol.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let digits = line.find(|c: char| !c.is_ascii_digit())?;
        let (id, rest) = line.split_at_checked(digits)?;
        let answer = if let Some(text) = rest.strip_prefix("| ") {
            Answer::Line(text.to_owned())
        } else if rest == " ok" {
            Answer::Ok
        } else {
            Answer::Error(rest.strip_prefix(" error: ")?.to_owned())
        };
        Some(Self {
            id: id.parse().ok()?,
            answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_line() {
        for answer in [
            Answer::Line(String::new()),
            Answer::Line("7 ok".into()),
            Answer::Ok,
            Answer::Error("no such file".into()),
        ] {
            let message = Message { id: 7, answer };
            assert_eq!(Message::parse(&message.to_string()), Some(message));
        }
    }

    #[test]
    fn line_break_cannot_forge_a_second_message() {
        let message = Message {
            id: 1,
            answer: Answer::Error("bad\n1 ok".into()),
        };
        assert!(!message.to_string().contains('\n'));
    }

    #[test]
    fn noise_is_rejected() {
        for line in ["", READY, "[    0.1] kernel", "12", "12 maybe", "| x"] {
            assert_eq!(Message::parse(line), None, "{line}");
        }
    }
}
