// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the documents quote of the repository: paths, links, and names of tests and other items.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::finding::{Finding, Rule};
use crate::sources::{Sources, normal};

/// What documents can quote.
#[derive(Debug, Default)]
pub struct Quotable {
    /// All paths below the root, of files and folders.
    pub paths: BTreeSet<PathBuf>,
    /// All words of the code that could be the name of an item.
    pub words: BTreeSet<String>,
    /// Names of other projects, which look like ours.
    pub foreign: BTreeSet<String>,
}

impl Quotable {
    /// Adds the words of some code.
    pub fn add_code(&mut self, code: &Sources) {
        for (_, text) in code.iter() {
            let words = text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            let names = words.filter(|word| word.contains('_'));
            self.words.extend(names.map(str::to_owned));
        }
    }

    /// Checks all quotes in `documents`.
    #[must_use]
    pub fn check(&self, documents: &Sources) -> Vec<Finding> {
        let mut found = Vec::new();
        for (file, text) in documents.iter() {
            let mut fenced = false;
            for (number, line) in (1..).zip(text.lines()) {
                if line.trim_start().starts_with("```") {
                    fenced = !fenced;
                }
                if fenced {
                    continue;
                }
                for span in code_spans(line) {
                    if let Some(message) = self.check_span(file, span) {
                        found.push(finding(file, number, span, message));
                    }
                }
                for link in links(line) {
                    if let Some(message) = self.check_link(documents, file, link) {
                        found.push(finding(file, number, link, message));
                    }
                }
            }
        }
        found
    }

    fn check_span(&self, file: &Path, span: &str) -> Option<String> {
        if self.foreign.contains(span) {
            return None;
        }
        if looks_like_path(span) {
            let top = span.split('/').next().unwrap_or(span);
            let ours = self.paths.contains(Path::new(top)) || span.ends_with(".rs");
            let beside = file.parent().unwrap_or(Path::new("")).join(span);
            return if ours && !self.has_path(Path::new(span)) && !self.has_path(&beside) {
                Some(format!(
                    "There is no `{span}`. Name the file that there is."
                ))
            } else {
                None
            };
        }
        let name = span.rsplit("::").next().unwrap_or(span);
        if looks_like_name(name) && !self.has_name(name) {
            return Some(format!(
                "Nothing in the code is named `{span}`. Name what there is."
            ));
        }
        None
    }

    fn has_path(&self, path: &Path) -> bool {
        let path = normal(path);
        // "NAME" stands for any name, as "*" does.
        let pattern = path.to_string_lossy().replace("NAME", "*");
        match pattern.split_once('*') {
            Some((start, _)) => self
                .paths
                .iter()
                .any(|known| known.to_string_lossy().starts_with(start)),
            None => self.paths.contains(&path),
        }
    }

    fn has_name(&self, name: &str) -> bool {
        match name.split_once('*') {
            Some((start, end)) => self
                .words
                .iter()
                .any(|word| word.starts_with(start) && word.ends_with(end)),
            None => self.words.contains(name),
        }
    }

    fn check_link(&self, documents: &Sources, file: &Path, link: &str) -> Option<String> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() {
            file.to_owned()
        } else {
            normal(&file.parent().unwrap_or(Path::new("")).join(path))
        };
        if !self.paths.contains(&target) {
            return Some(format!(
                "The link leads to {}, which is not there.",
                target.display()
            ));
        }
        let has = |text: &str| {
            text.lines()
                .filter_map(|line| line.strip_prefix('#'))
                .any(|heading| slug(heading.trim_start_matches('#')) == anchor)
        };
        match documents.get(&target) {
            Some(text) if !anchor.is_empty() && !has(text) => Some(format!(
                "{} has no heading for \"#{anchor}\".",
                target.display()
            )),
            _ => None,
        }
    }
}

fn finding(file: &Path, line: usize, key: &str, message: String) -> Finding {
    Finding {
        rule: Rule::Quote,
        key: key.to_owned(),
        place: (file.to_owned(), line),
        message,
    }
}

/// What stands between single backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of links and pictures.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

fn looks_like_path(span: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || "/_-.*@".contains(c);
    span.contains('/') && !span.starts_with('/') && span.chars().all(letters)
}

/// Three words or more in snake case.
fn looks_like_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '*';
    name.chars().all(letters) && name.matches('_').count() >= 2
}

/// The anchor that GitHub and GitLab make for a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}
