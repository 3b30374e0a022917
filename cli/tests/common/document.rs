// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a document has its readers do.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// A section of a document of the project.
pub(crate) struct Section(String);

impl Section {
    /// The section of `docs/console.md` under this heading, as far as the next heading.
    pub(crate) fn of_console(heading: &str) -> anyhow::Result<Self> {
        Self::of("docs/console.md", heading)
    }

    /// The same of any document.
    pub(crate) fn of(document: &str, heading: &str) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(document);
        let text = format!("\n{}", fs::read_to_string(path)?);
        let (_, rest) = text
            .split_once(&format!("\n{heading}\n"))
            .with_context(|| format!("{document} has no {heading}"))?;
        let end = rest.find("\n## ").unwrap_or(rest.len());
        let end = rest.find("\n### ").unwrap_or(end).min(end);
        Ok(Self(rest[..end].to_owned()))
    }

    /// What stands between two texts.
    pub(crate) fn between(&self, before: &str, after: &str) -> Option<&str> {
        let (_, rest) = self.0.split_once(before)?;
        Some(rest.split_once(after)?.0)
    }

    /// Its blocks in this language: of commands (`sh`) without what they say of themselves.
    pub(crate) fn blocks(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}\n");
        let blocks = self.0.split(&fence).skip(1);
        let bodies = blocks.filter_map(|block| Some(block.split_once("```")?.0));
        let line = |line: &str| match language {
            "sh" => line
                .split(" # ")
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
            _ => line.to_owned(),
        };
        bodies
            .map(|body| body.lines().map(line).collect::<Vec<_>>().join("\n"))
            .collect()
    }
}
