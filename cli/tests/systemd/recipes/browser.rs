// SPDX-License-Identifier: Apache-2.0 OR MIT
//! In a browser: noVNC and websockify of Debian, in Chromium.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use harness::viewers::{NoVnc, Unpacked};

use super::{Recipe, SIZE, SOON};
use crate::common::document::Section;

#[test]
fn console_in_a_browser_is_as_written() -> anyhow::Result<()> {
    let mut recipe = Recipe::prepare()?;
    let section = Section::of_console("### In a browser")?;
    let [serve, _forward] = &section.blocks("sh")[..] else {
        bail!("two blocks of commands are expected");
    };
    let [install, websockify] = serve.lines().collect::<Vec<_>>()[..] else {
        bail!("two lines are expected: {serve}");
    };
    // They are installed here already.
    assert_eq!(install, "sudo apt install novnc websockify");
    let url = section.between("<http://", ">").context("no address")?;
    let mut server = recipe
        .host
        .sandbox
        .command(websockify.split(' '))
        .stdin(Stdio::null())
        .spawn()?;
    recipe.shell("timeout 60 sh -c 'until ss -ltn | grep -q :6080; do sleep 0.1; done'")?;
    let viewers = Unpacked::obtain()?;
    let url = format!("http://{url}");
    let shown = NoVnc::open_url(&viewers, &recipe.host.sandbox, &url, SOON).and_then(|mut page| {
        page.wait_picture(&recipe.card, SOON)?;
        // A click makes the page listen to the keyboard.
        page.click((SIZE.0 / 2, SIZE.1 / 2))?;
        recipe.guest.gets_key(|| page.type_text("a"))
    });
    server.kill()?;
    server.wait()?;
    shown
}
