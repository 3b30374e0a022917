// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Over ssh, with Debian's server and its unit.

use std::fs;

use anyhow::{bail, ensure};
use harness::image::Image;
use harness::viewers::{TigerVnc, XServer};

use super::{Recipe, SOON};
use crate::common::document::Section;

/// What the packages' scripts and an administrator do: a key for root, and one of the host's that is known.
const PREPARE: &str = "\
getent passwd sshd >/dev/null || useradd --system --no-create-home --home-dir /run/sshd sshd
mkdir -p /etc/ssh
cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config
sed -i 's/^UsePAM yes/UsePAM no/' /etc/ssh/sshd_config
ssh-keygen -q -A
rm -rf ~/.ssh
mkdir -m 700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
awk '{ print \"host\", $1, $2 }' /etc/ssh/ssh_host_ed25519_key.pub >~/.ssh/known_hosts
systemctl start ssh
";

#[test]
fn console_over_ssh_is_as_written() -> anyhow::Result<()> {
    let mut recipe = Recipe::prepare()?;
    recipe.shell(PREPARE)?;
    let section = Section::of_console("### Over ssh")?;
    let [ours, by_hand] = &section.blocks("sh")[..] else {
        bail!("two blocks of commands are expected");
    };
    let [view, screenshot] = ours.lines().collect::<Vec<_>>()[..] else {
        bail!("two lines are expected: {ours}");
    };
    let [forward, viewer] = by_hand.lines().collect::<Vec<_>>()[..] else {
        bail!("two lines are expected: {by_hand}");
    };
    let display = XServer::start_in(&recipe.host.sandbox)?;
    for (before, line) in [(None, view), (Some(forward), viewer)] {
        if let Some(line) = before {
            recipe.shell(line)?;
        }
        let shown = TigerVnc::start_by(&display, recipe.on(&display, line), SOON)?;
        shown.wait_picture(&recipe.card, SOON)?;
        recipe.guest.gets_key(|| shown.type_text("a"))?;
    }
    let log = recipe.host.sandbox.journal(&["--unit=ssh"])?;
    ensure!(log.contains("Accepted publickey for root"), "{log}");
    recipe.shell(screenshot)?;
    let saved = fs::read(recipe.host.sandbox.path("/root/screen.png"))?;
    let difference = Image::from_png(&saved)?.difference(&recipe.card);
    ensure!(difference.is_none(), "{difference:?}");
    Ok(())
}
