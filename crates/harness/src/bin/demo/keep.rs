// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VM that stays up until its user has seen enough.

use std::io;

use harness::qemu::Vm;
use harness::systemd::Sandbox;

use crate::console::SOCKET;

/// What gives the guest a text console on its screen.
pub(crate) const KERNEL_OPTIONS: &str = "drm_kms_helper.fbdev_emulation=1";
/// Starts a shell on it, not on the first terminal: that one has all that was typed so far.
const SHELL: &str = "shell chvt 2 && (setsid -c sh </dev/tty2 >/dev/tty2 2>&1 &)";

/// Gives the guest's screen to a shell, says how to look at it, and returns once the user presses Enter.
pub(crate) fn until_told(vm: &mut Vm, sandbox: &Sandbox) -> anyhow::Result<()> {
    vm.command("display-off")?;
    vm.command(SHELL)?;
    let (socket, pid) = (sandbox.path(SOCKET), sandbox.pid());
    let socket = socket.display();
    println!(
        "
The VM runs a shell on its screen. Look at it, as root:

    nsenter --target {pid} --mount vhostctl view demo
    xtigervncviewer {socket}

From another machine, with any VNC viewer:

    ssh -N -L 5905:{socket} root@THIS-MACHINE
    vncviewer localhost:5905

Save its screen:

    nsenter --target {pid} --mount vhostctl screenshot demo - >screen.png

Press Enter to end it."
    );
    if io::stdin().read_line(&mut String::new())? == 0 {
        // Nobody can press it: whoever started this ends it.
        println!("(There is no terminal: kill -TERM {}.)", std::process::id());
        loop {
            std::thread::park();
        }
    }
    Ok(())
}
