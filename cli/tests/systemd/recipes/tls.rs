// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TLS in front of the socket, by stunnel on both sides.

use anyhow::{bail, ensure};
use harness::viewers::{RfbViewer, TigerVnc, XServer};

use super::{Recipe, SOON};
use crate::common::document::Section;
use crate::common::stderr;

/// Says what it gets by TLS, with the certificate of that name.
const CLIENT: &str = "import socket, ssl, sys
context = ssl.create_default_context(cafile='/home/alice/host.crt')
context.check_hostname = False
if sys.argv[1]: context.load_cert_chain(sys.argv[1] + '.crt', sys.argv[1] + '.key')
connection = context.wrap_socket(socket.create_connection(('host', 5951), 60))
print(connection.recv(12))
";

#[test]
fn console_with_tls_is_as_written() -> anyhow::Result<()> {
    let mut recipe = Recipe::prepare()?;
    let section = Section::of_console("### With TLS")?;
    let ([host_key, viewer_key, start, look], [host, viewer]) =
        (&section.blocks("sh")[..], &section.blocks("ini")[..])
    else {
        bail!("other blocks are expected");
    };
    let [tunnel, shows] = look.lines().collect::<Vec<_>>()[..] else {
        bail!("two lines are expected: {look}");
    };
    let sandbox = &recipe.host.sandbox;
    // Alice is root.
    sandbox.write("/etc/stunnel/vm1.conf", host)?;
    sandbox.write("/home/alice/vm1.conf", viewer)?;
    recipe.shell(&format!(
        "{host_key}\ncd /home/alice\n{viewer_key}\ncp viewer.crt /etc/stunnel/viewers.crt\ncp /etc/stunnel/host.crt .\n{start}"
    ))?;
    sandbox.wait_property("stunnel@vm1.service", "ActiveState", "active", SOON)?;
    recipe.shell("timeout 60 sh -c 'until ss -ltn | grep -q :5951; do sleep 0.1; done'")?;

    // What it says stays with it; the shell leaves it in the background.
    recipe.shell(&format!(
        "cd /home/alice; setsid {} >tunnel.log 2>&1 &",
        tunnel.trim_end_matches(" &")
    ))?;
    recipe.shell("timeout 60 sh -c 'until test -S /home/alice/vm1.sock; do sleep 0.1; done'")?;
    let mut ours = RfbViewer::connect(&sandbox.path("/home/alice/vm1.sock"), SOON)?;
    ours.wait_picture(&recipe.card)?;
    let display = XServer::start_in(sandbox)?;
    let shown = TigerVnc::start_by(&display, recipe.on(&display, shows), SOON)?;
    shown.wait_picture(&recipe.card, SOON)?;
    recipe.guest.gets_key(|| shown.type_text("a"))?;

    // Without a certificate, and with one that the host does not have.
    recipe.shell(&viewer_key.replace("viewer.", "other."))?;
    for (name, is_let_in) in [
        ("", false),
        ("/root/other", false),
        ("/home/alice/viewer", true),
    ] {
        let output = sandbox.exec(["/usr/bin/python3", "-c", CLIENT, name])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            said.contains("RFB 003.008") == is_let_in,
            "{name}: {said}{}",
            stderr(&output)
        );
    }
    Ok(())
}
