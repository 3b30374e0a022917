// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands that documents tell their readers to run: each block of them is run by a test, or a table says why not.

use std::path::Path;

use crate::finding::{Finding, Rule};
use crate::sources::Sources;

/// What a test makes of a block.
#[derive(Clone, Copy, Debug)]
pub enum Trial {
    /// This file has a test of this name, which takes the block from the document.
    Test(&'static str, &'static str),
    /// No test runs it as it stands there, for this reason.
    None(&'static str),
}

/// A block of a document, by the beginning of its first line.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// The document.
    pub document: &'static str,
    /// The beginning of the block, which no other block of this document that stands behind it has.
    pub begins: &'static str,
    /// What becomes of it.
    pub trial: Trial,
}

/// The languages of blocks that a reader copies.
const LANGUAGES: [&str; 5] = ["console", "ini", "sh", "xml", "yaml"];

/// Finds the blocks that the table does not have, tests that are not there, and lines of the table without a block.
#[must_use]
pub fn check(table: &[Tried], documents: &Sources, code: &Sources) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut used = vec![false; table.len()];
    for (path, text) in documents.iter() {
        for (line, first) in blocks(text) {
            let is_this = |(index, tried): (usize, &Tried)| {
                let is_new = !used.get(index).copied().unwrap_or_default();
                (is_new && path == Path::new(tried.document) && first.starts_with(tried.begins))
                    .then_some(index)
            };
            match table.iter().enumerate().find_map(is_this) {
                Some(index) => used[index] = true,
                None => found.push(Finding {
                    rule: Rule::Command,
                    key: first.to_owned(),
                    place: (path.to_owned(), line),
                    message: format!(
                        "The block \"{first}\" is not in the table of crates/layout/src/documented.rs. Name the test that runs it."
                    ),
                }),
            }
        }
    }
    for (tried, is_used) in table.iter().zip(used) {
        let complain = |message: String| Finding {
            rule: Rule::Command,
            key: tried.begins.to_owned(),
            place: (tried.document.into(), 0),
            message,
        };
        if !is_used {
            found.push(complain(format!(
                "No block begins with \"{}\".",
                tried.begins
            )));
        }
        if let Trial::Test(file, name) = tried.trial {
            let text = code.iter().find(|(path, _)| *path == Path::new(file));
            if !text.is_some_and(|(_, text)| has_test(text, name)) {
                found.push(complain(format!("{file} has no test {name}.")));
            }
        }
    }
    found
}

/// The first lines of blocks in these languages, with their numbers.
fn blocks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_open = false;
    let mut is_wanted = false;
    let lines = (1..).zip(text.lines());
    lines.filter_map(move |(number, line)| {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            is_open = !is_open;
            is_wanted = is_open && LANGUAGES.contains(&language);
            return None;
        }
        std::mem::take(&mut is_wanted).then_some((number, line))
    })
}

fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut parts = text.split("#[test]\n").skip(1);
    parts.any(|part| part.trim_start().starts_with(&head))
}
