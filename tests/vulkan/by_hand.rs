// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs by hand, as docs/vulkan.md has them.

use std::fs;

use anyhow::{Context as _, ensure};
use frontend::{Command, Program};
use harness::{paths, vulkan};
use rustix::process::Signal;

use crate::common::gpu_program;

const ACCEPT: &str = env!("CARGO_BIN_EXE_vhost-user-accept");

#[test]
fn render_server_is_started_as_the_document_says() -> anyhow::Result<()> {
    if let Some(reason) = vulkan::missing() {
        anyhow::bail!(reason);
    }
    let document = fs::read_to_string(paths::source_root().join("docs/vulkan.md"))?;
    let folder = tempfile::tempdir()?;
    let block = |begin: &str| -> anyhow::Result<Program> {
        let (_, rest) = document
            .split_once(&format!("```sh\n{begin}"))
            .context("no such block")?;
        let (rest, _) = rest.split_once("```").context("no end of the block")?;
        let command = format!("exec {begin}{rest}")
            .replace("/tmp", &folder.path().display().to_string())
            .replace("/usr/libexec/vhost-user-accept", ACCEPT)
            .replace("vhost-user-gpu ", &format!("{} ", gpu_program().display()));
        Ok(Command::new("/bin/sh").args(["-c", &command]).spawn()?)
    };
    let mut server = block("systemd-socket-activate")?;
    server.wait_stderr("Listening on")?;
    let mut gpu = block("vhost-user-gpu")?;
    gpu.wait_stderr("serving on")
        .with_context(|| server.stderr())?;
    let name = fs::read_to_string(format!("/proc/{}/comm", server.pid()))?;
    ensure!("virgl_render_server".starts_with(name.trim()), "{name}");
    gpu.signal(Signal::TERM)?;
    crate::common::assert_clean_exit(&mut gpu);
    // With its connection.
    server.wait_exit(frontend::DEFAULT_LIMIT)?;
    Ok(())
}
