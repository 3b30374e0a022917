// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A port, by a drop-in that an editor writes.

use anyhow::{bail, ensure};
use harness::viewers::{TigerVnc, XServer};

use super::{Recipe, SOCKET, SOON};
use crate::common::document::Section;

#[test]
fn console_over_tcp_is_as_written() -> anyhow::Result<()> {
    let mut recipe = Recipe::prepare()?;
    let section = Section::of_console("### Over TCP")?;
    let ([drop_in], [look]) = (&section.blocks("ini")[..], &section.blocks("sh")[..]) else {
        bail!("other blocks are expected");
    };
    let Some((edit, drop_in)) = drop_in.split_once('\n') else {
        bail!("no command is named: {drop_in}");
    };
    let [restart, viewer] = look.lines().collect::<Vec<_>>()[..] else {
        bail!("two lines are expected: {look}");
    };
    let sandbox = &recipe.host.sandbox;
    // Its user's editor writes what the document shows.
    sandbox.write("/root/drop-in", &format!("{drop_in}\n"))?;
    // Newer releases name a line before the file.
    let editor = "#!/bin/sh\nfor file; do :; done\ncat /root/drop-in >\"$file\"\n";
    sandbox.write("/root/editor", editor)?;
    let edit = edit.trim_start_matches("# ");
    let edit = format!(
        "chmod 755 editor; export SYSTEMD_EDITOR=/root/editor; script -qec '{edit}' /dev/null"
    );
    recipe.shell(&edit)?;
    recipe.shell(restart)?;
    // The Unix socket is there as before.
    let listens = sandbox.property("vhost-vnc@vm1.socket", "Listen")?;
    ensure!(
        listens.contains(SOCKET) && listens.contains("127.0.0.1:5901"),
        "{listens}"
    );
    let display = XServer::start_in(sandbox)?;
    let shown = TigerVnc::start_by(&display, recipe.on(&display, viewer), SOON)?;
    shown.wait_picture(&recipe.card, SOON)?;
    recipe.guest.gets_key(|| shown.type_text("a"))?;
    Ok(())
}
