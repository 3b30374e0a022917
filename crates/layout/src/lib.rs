//! Checks how the code is laid out: which module imports from which, how long files are, where the methods of a
//! type are. [`house`] is the table of the rules; `cargo run -p layout` reports, `cargo nextest run -p layout` fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

mod cfg;
pub mod house;
pub mod modules;
pub mod rules;
pub mod sources;

use modules::Modules;
use rules::Finding;
use sources::Sources;

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The product's code.
///
/// # Errors
///
/// A file that cannot be read.
pub fn product() -> Result<Sources> {
    Sources::read(root(), house::FOLDERS, "rs")
}

/// Checks the repository.
///
/// # Errors
///
/// A file that cannot be read or parsed.
pub fn check() -> Result<Vec<Finding>> {
    let sources = product()?;
    let modules = Modules::parse(&sources, house::HOUSE.crates)?;
    Ok(house::HOUSE.check(&sources, &modules, &dependencies()?))
}

/// The crates of the standard library and those that the product depends on, as code names them.
fn dependencies() -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = ["alloc", "core", "proc_macro", "std", "test"]
        .map(str::to_owned)
        .into();
    for manifest in house::MANIFESTS {
        let text = fs::read_to_string(root().join(manifest))
            .with_context(|| format!("cannot read {manifest}"))?;
        let mut listed = false;
        for line in text.lines() {
            if line.starts_with('[') {
                listed = line.starts_with("[dependencies");
            } else if let (true, Some((name, _))) = (listed, line.split_once('=')) {
                let name = name.split('.').next().unwrap_or(name);
                names.insert(name.trim().replace('-', "_"));
            }
        }
    }
    Ok(names)
}
