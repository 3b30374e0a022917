//! The session in the README runs as it is printed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use frontend::Session;
use harness::packages;
use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::have;

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
fn session_of_the_readme_is_real() -> anyhow::Result<()> {
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
    // As libvirt's package leaves a machine, whatever is on this one.
    let user = "grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:107::/:/bin/false >>/etc/passwd; \
                rm -f /etc/libvirt/qemu.conf";
    sandbox.exec(["sh", "-c", user])?;
    for (command, shown) in commands {
        let mut words = vec!["umockdev-run", "--device", DEVICES, "--"];
        words.extend(command.split(' '));
        let output = sandbox.exec(words).with_context(|| command.clone())?;
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&said), shown, "{command}");
    }
    Ok(())
}

/// The commands of the README's blocks for a shell that begin with these words.
fn commands<'a>(readme: &'a str, words: &str) -> Vec<&'a str> {
    let lines = readme.lines();
    lines.filter(|line| line.starts_with(words)).collect()
}

#[test]
fn backends_of_the_readme_serve() -> anyhow::Result<()> {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(cli.join("../README.md"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[
        &packages::virtiofsd()?,
        &packages::storage_daemon()?,
        &packages::passt()?,
        staging.path(),
    ])?;
    let prepare = "mkdir -p /srv/data && truncate -s 1M /srv/vm1.raw && chmod 600 /srv/vm1.raw";
    sandbox.exec(["sh", "-c", prepare])?;
    for (device_type, name) in [("fs", "data"), ("block", "disk"), ("net", "net")] {
        let commands = commands(&readme, &format!("vhostctl add {device_type} "));
        let [command] = commands[..] else {
            bail!("one command of the README for {device_type} is expected, not {commands:?}");
        };
        let output = sandbox.exec(command.split(' ').chain(["--now"]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {said}");
        let path = format!("/run/vhost-user/backend/vm1:{name}.sock");
        let mut session = Session::new(UnixStream::connect(sandbox.path(&path))?);
        session
            .negotiate(Session::usual_protocol_features())
            .with_context(|| sandbox.journal(&["--lines=30"]).unwrap_or_default())?;
    }
    Ok(())
}
