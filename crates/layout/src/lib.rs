// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks how the code is laid out: which module imports from which, how long files are, where the methods of a
//! type are. [`house`] is the table of the rules; `cargo run -p layout` lists the findings, and `tests/house.rs`
//! fails if there are any.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

mod cfg;
pub mod commands;
mod documented;
pub mod finding;
pub mod house;
pub mod licenses;
pub mod messages;
pub mod modules;
pub mod pictures;
pub mod quotes;
mod references;
pub mod releases;
pub mod rules;
pub mod sources;

use finding::Finding;
use messages::Texts;
use modules::Modules;
use quotes::Quotable;
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

/// Checks what the documents quote.
///
/// # Errors
///
/// A file that cannot be read, or git is missing.
pub fn check_documents() -> Result<Vec<Finding>> {
    let mut quotable = Quotable::default();
    let mut code = Sources::default();
    let mut documents = Sources::default();
    for path in files()? {
        quotable.paths.extend(path.ancestors().map(Path::to_owned));
        let into = match path.extension().and_then(OsStr::to_str) {
            Some("rs") => &mut code,
            Some("md") => &mut documents,
            _ => continue,
        };
        into.insert_file(root(), &path)?;
    }
    quotable.add_code(&code);
    quotable
        .foreign
        .extend(house::FOREIGN_NAMES.iter().map(|name| (*name).to_owned()));
    let mut found = quotable.check(&documents);
    let mut texts = Texts::new(&code);
    texts.add(house::FOREIGN_MESSAGES);
    found.extend(texts.check(&documents));
    let mut for_users = Sources::default();
    for (path, text) in documents.iter().filter(|(path, _)| is_for_users(path)) {
        for_users.insert(&path.display().to_string(), text);
    }
    found.extend(commands::check(documented::TRIED, &for_users, &code));
    Ok(found)
}

/// Whether a document tells users what to run, and not who works on the project.
fn is_for_users(path: &Path) -> bool {
    path.starts_with("docs")
        || [Path::new("README.md"), Path::new("packaging/README.md")].contains(&path)
}

/// Checks that each file of code begins with the licences that `Cargo.toml` names.
///
/// # Errors
///
/// A file that cannot be read, or git is missing.
pub fn check_licenses() -> Result<Vec<Finding>> {
    let manifest = manifest()?;
    let expression = value(&manifest, "license").context("Cargo.toml names no license")?;
    let mut code = Sources::default();
    for path in files()? {
        if path.extension() == Some(OsStr::new("rs")) {
            code.insert_file(root(), &path)?;
        }
    }
    Ok(licenses::check(expression, &code))
}

/// Checks that the changelogs and the packages are of the version in `Cargo.toml`.
///
/// # Errors
///
/// A file that cannot be read.
pub fn check_releases() -> Result<Vec<Finding>> {
    let manifest = manifest()?;
    let version = value(&manifest, "version").context("Cargo.toml names no version")?;
    let mut files = Sources::default();
    for name in [
        releases::CHANGELOG,
        releases::DEBIAN,
        releases::RPM,
        releases::SECURITY,
    ] {
        files.insert_file(root(), Path::new(name))?;
    }
    Ok(releases::check(version, &files))
}

fn manifest() -> Result<String> {
    fs::read_to_string(root().join("Cargo.toml")).context("cannot read Cargo.toml")
}

/// The first value of this name in a manifest.
fn value<'a>(manifest: &'a str, name: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(" = ")?;
        value.split('"').nth(1)
    })
}

/// All files of the repository: those that git knows, and those that it would add.
fn files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root())
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", output.status);
    let names = output.stdout.split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(|name| PathBuf::from(OsStr::from_bytes(name)))
        .filter(|path| root().join(path).exists())
        .collect())
}

/// Checks the code.
///
/// # Errors
///
/// A file that cannot be read or parsed.
pub fn check() -> Result<Vec<Finding>> {
    let sources = product()?;
    let modules = Modules::parse(&sources, house::HOUSE.crates)?;
    let mut found = house::HOUSE.check(&sources, &modules, &dependencies()?);
    for file in house::PICTURES {
        let text =
            fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        found.extend(pictures::check(
            &house::HOUSE,
            &modules,
            Path::new(file),
            &text,
        ));
    }
    Ok(found)
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
