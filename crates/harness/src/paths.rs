// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of the project's own files.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The root of the source tree.
#[must_use]
pub fn source_root() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness)
}

/// The folder for everything that is fetched or generated.
#[must_use]
pub fn build_dir() -> PathBuf {
    source_root().join("build")
}

/// A program of the workspace, built with the same profile as the caller.
///
/// # Errors
///
/// If it has not been built yet.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program lies")?;
    // Programs lie in target/PROFILE, tests one below in deps.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "{name} is not built near {}: run cargo build --workspace",
                own.display()
            )
        })
}
