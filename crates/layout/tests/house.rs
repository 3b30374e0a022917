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

#[test]
fn documents_quote_what_exists() -> Result<()> {
    if !layout::root().join(".git").exists() {
        eprintln!("Skipped: git does not know the files of this tree.");
        return Ok(());
    }
    assert_none(&layout::check_documents()?);
    Ok(())
}
