//! Screens as dmabufs, of a render node: that of a Linux guest that plays the host.

#![cfg(feature = "virgl")]

use std::path::Path;
use std::time::Duration;

use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::{opengl, paths};

#[test]
fn a_render_nodes_textures_are_passed_on() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain_rendering(&mut |step| eprintln!("{step}"))?;
    let host = Vm::builder(&artifacts)
        .program(Path::new(env!("CARGO_BIN_EXE_vhost-user-gpu")))
        .program(&paths::program("dmabuf-check")?);
    let mut host = opengl::add_renderer_to(host)?.boot()?;
    let said = host.command_within("run /usr/bin/dmabuf-check", Duration::from_secs(200))?;
    assert!(
        said.iter().any(|line| line.contains("all checks held")),
        "{said:?}"
    );
    Ok(())
}
