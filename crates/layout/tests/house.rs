// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The repository keeps the rules of its layout, which are the table in `src/house.rs`.

use anyhow::Result;
use layout::finding::Finding;

/// Fails with a line for each finding.
fn assert_none(found: &[Finding]) {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn code_keeps_the_layout() -> Result<()> {
    assert_none(&layout::check()?);
    Ok(())
}

/// Whether git knows the files of this tree; else says that the test is skipped.
fn git_knows_the_files() -> bool {
    let known = layout::root().join(".git").exists();
    if !known {
        eprintln!("Skipped: git does not know the files of this tree.");
    }
    known
}

#[test]
fn documents_quote_what_exists() -> Result<()> {
    if git_knows_the_files() {
        assert_none(&layout::check_documents()?);
    }
    Ok(())
}

#[test]
fn code_begins_with_its_licences() -> Result<()> {
    if git_knows_the_files() {
        assert_none(&layout::check_licenses()?);
    }
    Ok(())
}

#[test]
fn changelogs_and_packages_are_of_the_version() -> Result<()> {
    assert_none(&layout::check_releases()?);
    Ok(())
}
