//! The session that the README shows is a real one.

mod common;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use harness::staging::stage;
use harness::systemd::Sandbox;

use common::have;

const DEVICES: &str = "/run/laptop.umockdev";

/// The commands of the README's session, each with what it says.
fn session(readme: &str) -> Vec<(String, String)> {
    let block = readme.split("```console\n").nth(1).unwrap_or_default();
    let block = block.split("```").next().unwrap_or_default();
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("# ") {
            Some(command) => commands.push((command.to_owned(), String::new())),
            None => {
                if let Some((_, said)) = commands.last_mut() {
                    said.push_str(line);
                    said.push('\n');
                }
            }
        }
    }
    commands
}

#[test]
fn the_session_of_the_readme_is_real() -> anyhow::Result<()> {
    if !have("umockdev-run", "package umockdev") {
        return Ok(());
    }
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands = session(&fs::read_to_string(cli.join("../README.md"))?);
    ensure!(commands.len() > 5, "the README has no session");
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let laptop = fs::read_to_string(cli.join("tests/mock/laptop.umockdev"))?;
    sandbox.write(DEVICES, &laptop)?;
    for (command, shown) in commands {
        let mut words = vec!["umockdev-run", "--device", DEVICES, "--"];
        words.extend(command.split(' '));
        let output = sandbox.exec(words).with_context(|| command.clone())?;
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&said), shown, "{command}");
    }
    Ok(())
}
