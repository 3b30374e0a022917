// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs by hand, as docs/vulkan.md has them.

use std::fs;

use anyhow::{Context as _, ensure};
use frontend::{Command, Program};
use harness::{paths, vulkan};
use rustix::process::Signal;

use crate::common::gpu_program;

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
            .replace("vhost-user-gpu ", &format!("{} ", gpu_program().display()));
        Ok(Command::new("/bin/sh").args(["-c", &command]).spawn()?)
    };
    let server = block("systemd-socket-activate")?;
    server.wait_stderr("Listening on")?;
    // Each has a server of its own.
    for _ in 0..2 {
        let mut gpu = block("vhost-user-gpu")?;
        gpu.wait_stderr("serving on")
            .with_context(|| server.stderr())?;
        let pid = server.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let names = children
            .split_whitespace()
            .map(|child| fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default());
        let names: String = names.collect();
        ensure!(
            names
                .lines()
                .any(|name| "virgl_render_server".starts_with(name)),
            "{names}"
        );
        gpu.signal(Signal::TERM)?;
        crate::common::assert_clean_exit(&mut gpu);
    }
    server.signal(Signal::TERM)?;
    Ok(())
}
