// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What documents quote of messages: the first column of each table that is headed "Message".
//!
//! A message stands between backticks, word for word, with "…" for what varies. The code has to contain each part
//! between these: a program's own message in its source, the message of another program in a test that provokes it.

use std::path::Path;

use crate::finding::{Finding, Rule};
use crate::sources::Sources;

/// The head of such a table.
const HEAD: &str = "| Message |";
/// What varies in a message.
const VARIES: char = '…';
/// Shorter parts say too little to be looked for, in bytes.
const SHORTEST_PART: usize = 8;

/// The texts of some code, to look for messages in.
#[derive(Debug, Default)]
pub struct Texts(Vec<String>);

impl Texts {
    /// Takes the texts of `code`, with string literals that go on in the next line as one.
    #[must_use]
    pub fn new(code: &Sources) -> Self {
        Self(code.iter().map(|(_, text)| joined(text)).collect())
    }

    /// Adds messages that no code contains.
    pub fn add(&mut self, messages: &[&str]) {
        self.0.extend(messages.iter().map(|&text| text.to_owned()));
    }

    /// Checks the messages in `documents`.
    #[must_use]
    pub fn check(&self, documents: &Sources) -> Vec<Finding> {
        let mut found = Vec::new();
        for (file, text) in documents.iter() {
            let mut is_listed = false;
            for (number, line) in (1..).zip(text.lines()) {
                is_listed = line.starts_with(HEAD) || (is_listed && line.starts_with('|'));
                if !is_listed {
                    continue;
                }
                let cell = line.split(" | ").next().unwrap_or(line);
                let messages = cell.split('`').skip(1).step_by(2);
                for message in messages.filter(|message| message.contains(' ')) {
                    for part in message.split(VARIES).map(str::trim) {
                        if part.len() >= SHORTEST_PART && !self.contain(part) {
                            found.push(finding(file, number, message, part));
                        }
                    }
                }
            }
        }
        found
    }

    fn contain(&self, part: &str) -> bool {
        self.0.iter().any(|text| text.contains(part))
    }
}

fn finding(file: &Path, line: usize, message: &str, part: &str) -> Finding {
    Finding {
        rule: Rule::Quote,
        key: message.to_owned(),
        place: (file.to_owned(), line),
        message: format!(
            "No program and no test says \"{part}\". Quote the message word for word."
        ),
    }
}

/// The text with each backslash at the end of a line, that line's end and the blanks after it left out.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        joined.push_str(part.trim_start());
    }
    joined
}
