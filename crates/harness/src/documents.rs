// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the project's documents tell users to run.

use std::fs;

use anyhow::Context as _;

use crate::paths::source_root;

/// The lines of the README's first block, without what they say of themselves.
///
/// # Errors
///
/// If there is no README.
pub fn first_lines() -> anyhow::Result<Vec<String>> {
    let readme = source_root().join("README.md");
    let readme =
        fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    Ok(lines_of_first_block(&readme))
}

fn lines_of_first_block(document: &str) -> Vec<String> {
    let block = document.split("```sh\n").nth(1).unwrap_or_default();
    let block = block.split("```").next().unwrap_or_default();
    let without_comment = |line: &str| {
        let command = line.split(" #").next().unwrap_or_default();
        command.trim_end().to_owned()
    };
    block.lines().map(without_comment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_later_blocks_are_left_out() {
        let document = "# Title\n\n```sh\none --x   # says\ntwo\n```\n\n```sh\nthree\n```\n";
        assert_eq!(lines_of_first_block(document), ["one --x", "two"]);
        assert!(lines_of_first_block("no block").is_empty());
    }
}
