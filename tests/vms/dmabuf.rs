// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A render node: that of a Linux guest in the role of the host.

use std::path::Path;
use std::time::Duration;

use harness::artifacts::Artifacts;
use harness::opengl::{self, Mesa};
use harness::paths;
use harness::qemu::Vm;

/// The processor that starts Mesa and compiles shaders is emulated, and not the only one.
const LIMIT: Duration = Duration::from_secs(360);

fn check(mesa: Mesa, what: &str) -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain_rendering(&mut |step| eprintln!("{step}"))?;
    let host = Vm::builder(&artifacts)
        .program(Path::new(env!("CARGO_BIN_EXE_vhost-user-gpu")))
        .program(&paths::program("dmabuf-check")?);
    let mut host = opengl::add_renderer_to(host, mesa)?.boot()?;
    if mesa == Mesa::Installed {
        // By this one, a Mesa since 24.2 passes its textures on.
        host.command("run /bin/rm -f /dev/udmabuf")?;
    }
    let said = host.command_within(&format!("run /usr/bin/dmabuf-check {what}"), LIMIT)?;
    assert!(
        said.iter().any(|line| line.contains("all checks held")),
        "{said:?}"
    );
    Ok(())
}

/// What users run on their own machines: make gpu-check.
#[test]
fn report_says_what_a_render_node_does() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain_rendering(&mut |step| eprintln!("{step}"))?;
    let host = Vm::builder(&artifacts)
        .program(Path::new(env!("CARGO_BIN_EXE_vhost-user-gpu")))
        .program(&paths::program("gpu-check")?);
    let mut host = opengl::add_renderer_to(host, Mesa::Newer)?.boot()?;
    let said = host.command_within("run /usr/bin/gpu-check --frames=2", LIMIT)?;
    let has = |start: &str| said.iter().any(|line| line.starts_with(start));
    for line in [
        "## /dev/dri/renderD128",
        "- driver: ",
        "| a screen of 1920x1080 is sent as | dmabuf XB24",
        "| what was drawn is read back right | yes | yes |",
        "| ends well | yes | yes |",
        "No system call.",
        "All checks held.",
    ] {
        assert!(has(line), "no {line:?} in {said:#?}");
    }
    Ok(())
}

#[test]
fn textures_of_a_render_node_are_passed_on() -> anyhow::Result<()> {
    check(Mesa::Newer, "dmabufs")
}

#[test]
fn render_node_without_dmabufs_is_read_back() -> anyhow::Result<()> {
    check(Mesa::Installed, "pixels")
}
