// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Collects the crates for source packages, which are built without network.
//!
//! `vendoring FOLDER`, in the root of the workspace, fills FOLDER with the sources of all crates in `Cargo.lock`, as
//! `cargo vendor` does. Cargo only needs the manifest of a crate that the programs are not built from, such as those of
//! the tests and of other operating systems: the rest of it is left out. `FOLDER/COPYRIGHT` has the copyright and the
//! licence of each crate that is linked into a program or builds it, in Debian's machine-readable form.

mod copyright;
mod graph;
mod reduce;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};

use crate::graph::Workspace;

/// What packages contain programs of.
const PACKAGES: [&str; 2] = ["vhost-user-backends", "vhostctl"];
/// What packages are built for.
const TARGETS: [&str; 3] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "riscv64gc-unknown-linux-gnu",
];

fn main() -> ExitCode {
    match vendor() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vendoring: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn vendor() -> anyhow::Result<()> {
    let mut words = env::args_os().skip(1);
    let (Some(folder), None) = (words.next(), words.next()) else {
        bail!("usage: vendoring FOLDER");
    };
    let folder = Path::new(&folder);
    let mut needed = Vec::new();
    for target in TARGETS {
        let workspace = Workspace::read(&cargo(&[
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            target,
        ])?)?;
        needed.extend(workspace.needed_by(&PACKAGES)?);
    }
    needed.sort();
    needed.dedup();
    let path = folder
        .to_str()
        .context("the name of the folder is no UTF-8")?;
    cargo(&["vendor", "--locked", "--quiet", "--versioned-dirs", path])?;
    let removed = reduce::reduce(folder, &needed)?;
    let text = copyright::paragraphs(folder, &needed)?;
    fs::write(folder.join("COPYRIGHT"), text).context("cannot write COPYRIGHT")?;
    println!(
        "{} crates, and the manifests of {removed} others",
        needed.len()
    );
    Ok(())
}

/// Standard output of Cargo, which has to succeed.
fn cargo(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {}", cargo.to_string_lossy()))?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
