// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the README and docs/qemu.md show runs as it is printed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use frontend::gpu::{Format, Gpu, GpuOptions, Rect, ResponseKind};
use frontend::{Memory, Session};
use harness::documents::first_lines;
use harness::image::Image;
use harness::packages;
use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::have;
use crate::common::host::Host;

const DEVICES: &str = "/run/laptop.umockdev";

/// The commands of the first session in a document, each with what it says.
fn session(document: &str) -> Vec<(String, String)> {
    let block = document.split("```console\n").nth(1).unwrap_or_default();
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
fn session_is_real() -> anyhow::Result<()> {
    if !have("umockdev-run", "package umockdev") {
        return Ok(());
    }
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands = session(&fs::read_to_string(cli.join("../docs/qemu.md"))?);
    ensure!(commands.len() > 5, "docs/qemu.md has no session");
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

/// The commands of a document's blocks for a shell that begin with these words.
fn commands<'a>(document: &'a str, words: &str) -> Vec<&'a str> {
    let lines = document.lines();
    lines.filter(|line| line.starts_with(words)).collect()
}

#[test]
fn other_backends_serve() -> anyhow::Result<()> {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(cli.join("../docs/qemu.md"))?;
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
        let commands = commands(&document, &format!("vhostctl add {device_type} "));
        let [command] = commands[..] else {
            bail!("one command for {device_type} is expected, not {commands:?}");
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

/// The first lines of the README but for QEMU: a guest that is played draws.
#[test]
fn first_lines_of_the_readme_show_a_screen() -> anyhow::Result<()> {
    const SIZE: (u32, u32) = (64, 48);
    let lines = first_lines()?;
    let [add, qemu, view, screenshot] = &lines[..] else {
        bail!("the README does not begin with four lines");
    };
    let host = Host::new(&[])?;
    let run = |line: &str, before: &[&str]| -> anyhow::Result<String> {
        let words: Vec<&str> = before.iter().copied().chain(line.split(' ')).collect();
        let output = host.sandbox.exec(words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    };
    run(add, &[])?;

    let (_, words) = qemu.split_once("$(").context("no $( in QEMU's line")?;
    let devices = run(words.trim_end_matches(')'), &[])?;
    for socket in ["gpu/vm1", "input/vm1:keyboard", "input/vm1:tablet"] {
        let path = format!("path=/run/vhost-user/{socket}.sock");
        ensure!(devices.contains(&path), "{devices}");
    }
    ensure!(devices.contains("-display none"), "{devices}");
    // The shell only splits the words.
    ensure!(!devices.contains(['\'', '"', '\\']), "{devices}");

    let socket = "/run/vhost-user/vnc/vm1.sock";
    let viewed = run(view, &["env", "VHOSTCTL_VIEWER=echo"])?;
    assert_eq!(viewed.trim_end(), socket);

    let memory = Memory::with_size(1 << 20)?;
    let gpu = UnixStream::connect(host.sandbox.path("/run/vhost-user/gpu/vm1.sock"))?;
    let no_display = None::<UnixStream>;
    let mut gpu = Gpu::start(
        Session::new(gpu),
        &memory,
        no_display,
        GpuOptions::default(),
    )?;
    let (width, height) = SIZE;
    let pixels = memory.alloc(u64::from(width * height * 4), 4096)?;
    let place = |n: u32| [n as u8, (n >> 8) as u8, 77, 0];
    let picture: Vec<u8> = (0..width * height).flat_map(place).collect();
    memory.write(pixels, &picture)?;
    let whole = Rect::sized(width, height);
    for response in [
        gpu.create_2d(1, Format::B8G8R8X8, width, height),
        gpu.attach_backing(1, &[(pixels, width * height * 4)]),
        gpu.set_scanout(0, 1, whole),
        gpu.transfer_to_host_2d(1, whole, 0),
        gpu.flush(1, whole),
    ] {
        response?.expect("drawing", ResponseKind::OkNodata)?;
    }
    run(screenshot, &["env", "--chdir=/root"])?;
    let shown = fs::read(host.sandbox.path("/root/screen.png"))?;
    let shown = Image::from_png(&shown)?;
    for (x, y) in [(0, 0), (width - 1, 0), (3, 40), (width - 1, height - 1)] {
        let [blue, green, red, _] = place(y * width + x);
        let expected = u32::from_be_bytes([0, red, green, blue]);
        assert_eq!(shown.get(x, y), Some(expected), "{x}, {y}");
    }
    assert_eq!(shown.get(width, 0), None);
    Ok(())
}
