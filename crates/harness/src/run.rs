// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running other programs.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// Runs a command to its end; an exit status other than 0 is an error that shows
/// the command and what it said.
///
/// # Errors
///
/// If it cannot be started, or fails.
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ({}): {}", shown(command), output.status, said.trim());
    }
    Ok(output)
}

/// As [`run`], and returns what the command wrote to its standard output as text.
///
/// # Errors
///
/// If it cannot be started, fails, or does not write UTF-8.
pub fn read(command: &mut Command) -> anyhow::Result<String> {
    let output = run(command)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} does not write text", shown(command)))
}

/// Whether a program of that name is found in `PATH`.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    installed(program).is_some()
}

/// Where PATH has that program.
#[must_use]
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        // Writing to a String cannot fail.
        let _ = write!(text, " {argument}");
    }
    text
}
