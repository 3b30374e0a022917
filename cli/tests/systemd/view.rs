// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `view` and `screenshot` of a VM's console, under a real systemd with the real VNC server and GPU.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::Memory;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use harness::image::Image;
use harness::viewers::RfbViewer;
use rfb::client::ClientError;
use serde_json::Value;

use crate::common::follower::Follower;
use crate::common::host::Host;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/vhost-user/vnc/vm1.sock";
const VNC: &str = "vhost-vnc@vm1.service";
const VIEWER: &str = "/usr/local/bin/xtigervncviewer";
/// A viewer that says what it got, until a file says that it ends.
const SCRIPT: &str = "#!/usr/bin/python3
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print(sys.argv[1:], s.recv(12, socket.MSG_WAITALL), oct(os.stat(os.path.dirname(sys.argv[1])).st_mode), flush=True)
for answer, length in ((b'RFB 003.008\\n', 2), (b'\\1', 4), (b'\\1', 24)):
    s.sendall(answer)
    s.recv(length, socket.MSG_WAITALL)
while os.path.exists('/run/viewer-stays'): time.sleep(0.02)
sys.exit(7)
";
/// An ssh that reaches this machine: it forwards a Unix socket as -L says, or runs the command.
const SSH: &str = r#"#!/usr/bin/python3
import os, re, socket, sys, threading, time
arguments = sys.argv[1:]
with open('/run/ssh', 'a') as log: log.write(' '.join(arguments) + '\n')
if '-L' not in arguments: os.execvp(arguments[-1], arguments[-1:])
if 'nowhere' in arguments: sys.exit(255)
local, remote = re.split(r'(?<!\\):', arguments[arguments.index('-L') + 1])
local, remote = local.replace('\\:', ':'), remote.replace('\\:', ':')
listener = socket.socket(socket.AF_UNIX)
os.umask(0o177)
listener.bind(local + '.new')
listener.listen(5)
os.rename(local + '.new', local)
def copy(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
while True:
    here, _ = listener.accept()
    there = socket.socket(socket.AF_UNIX)
    if 'refused' in arguments: here.close(); continue
    try: there.connect(remote)
    except OSError: here.close(); continue
    for pair in ((here, there), (there, here)): threading.Thread(target=copy, args=pair, daemon=True).start()
"#;

/// A display, which the viewer here does not use.
const DISPLAY: &[&str] = &["DISPLAY=:7"];

/// A host whose vm1 has a console with two heads, and a viewer.
fn host() -> anyhow::Result<Host> {
    let host = Host::new(&[])?;
    host.ok(&["add", "console", "vm1", "--heads=2", "--now"])?;
    program(&host, VIEWER, SCRIPT)?;
    Ok(host)
}

fn program(host: &Host, path: &str, script: &str) -> anyhow::Result<()> {
    host.sandbox.write(path, script)?;
    host.sandbox.exec(["chmod", "755", path]).map(drop)
}

/// Runs vhostctl with these variables; its exit status and all that it said.
fn run(
    host: &Host,
    variables: &[&str],
    arguments: &[&str],
) -> anyhow::Result<(Option<i32>, String)> {
    let output = host
        .sandbox
        .exec([&["env"], variables, &["vhostctl"], arguments].concat())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    Ok((output.status.code(), said))
}

#[test]
fn viewer_gets_the_socket_of_the_head() -> anyhow::Result<()> {
    let host = host()?;
    let (code, said) = run(&host, DISPLAY, &["view", "vm1"])?;
    assert_eq!(code, Some(7), "the status is the viewer's: {said}");
    assert!(
        said.starts_with(&format!("['{SOCKET}'] b'RFB 003.008\\n' ")),
        "{said}"
    );
    let (code, said) = run(&host, &["WAYLAND_DISPLAY=w"], &["view", "vm1", "--head=1"])?;
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.starts_with("['/run/vhost-user/vnc/vm1:1.sock'] b'RFB"),
        "{said}"
    );
    // Another one, with or without a display.
    let other = "/usr/local/bin/other";
    program(&host, other, "#!/bin/sh\necho other $1\n")?;
    let named = run(&host, &[], &["view", "vm1", "--viewer=other"])?;
    let by_variable = run(
        &host,
        &[&format!("VHOSTCTL_VIEWER={other}")],
        &["view", "vm1"],
    )?;
    let expected = (Some(0), format!("other {SOCKET}\n"));
    assert_eq!((named, by_variable), (expected.clone(), expected));
    Ok(())
}

#[test]
fn what_cannot_be_viewed_is_explained() -> anyhow::Result<()> {
    let host = host()?;
    for verb in ["view", "screenshot"] {
        let said = |arguments: &[&str], code| -> anyhow::Result<String> {
            let (is, said) = run(&host, DISPLAY, &[&[verb], arguments].concat())?;
            ensure!(is == Some(code), "{verb} {arguments:?}: {is:?}: {said}");
            Ok(said)
        };
        let text = said(&["vm2"], 5)?;
        assert!(
            text.contains("vm2 has no console. Add one: vhostctl add console vm2 --now"),
            "{text}"
        );
        let text = said(&["vm1", "--head=2"], 1)?;
        assert!(
            text.contains("vm1 has no head 2: its console has heads 0 to 1."),
            "{text}"
        );
        host.ok(&["stop", "vm1:vnc", "--force"])?;
        let text = said(&["vm1"], 1)?;
        assert!(
            text.contains("vhost-vnc@vm1.socket is inactive. Start it: vhostctl start vm1"),
            "{text}"
        );
        host.ok(&["start", "vm1:vnc"])?;
        // Somebody who was not named.
        let user = [
            "setpriv",
            "--reuid=daemon",
            "--regid=daemon",
            "--clear-groups",
            "--bounding-set=-all",
            "env",
            "DISPLAY=:7",
            "vhostctl",
            verb,
            "vm1",
        ];
        let denied = host.sandbox.exec(user)?;
        let text = stderr(&denied);
        assert_eq!(denied.status.code(), Some(4), "{text}");
        assert!(
            text.contains("root:root, mode 0600") && text.contains("--viewer-user=USER"),
            "{text}"
        );
    }
    let (code, said) = run(
        &host,
        &["-u", "DISPLAY", "-u", "WAYLAND_DISPLAY"],
        &["view", "vm1"],
    )?;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("vhostctl screenshot vm1") && said.contains("ssh -fN -L /tmp/vm1.sock:/run/"),
        "{said}"
    );
    let program = "env DISPLAY=:7 PATH=/nonexistent $(command -v vhostctl) view vm1";
    let none = host.sandbox.exec(["sh", "-c", program])?;
    assert!(
        stderr(&none).contains("package tigervnc-viewer"),
        "{}",
        stderr(&none)
    );
    let (code, said) = run(&host, &[], &["view", "vm1", "--viewer=/nonexistent"])?;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("Failed to run /nonexistent: No such file"),
        "{said}"
    );
    Ok(())
}

/// What ssh was told to forward last: the socket here.
fn forwarded(host: &Host) -> anyhow::Result<String> {
    let log = fs::read_to_string(host.sandbox.path("/run/ssh"))?;
    let line = log.lines().rfind(|line| line.contains(" -L "));
    let line = line.context("nothing was forwarded")?;
    let words: Vec<_> = line.split(' ').collect();
    let place = words.iter().position(|word| *word == "-L");
    let words = place.and_then(|place| words.get(place + 1));
    let local = words.and_then(|word| word.split(':').next());
    Ok(local.context("no socket")?.to_owned())
}

/// Whether something of a forwarding is left: its folder, or ssh.
fn is_forwarding(host: &Host, local: &str) -> anyhow::Result<bool> {
    let folder = local.rsplit_once('/').context("no folder")?.0;
    let script = format!("test -e {folder} || pgrep -f -- '[-]L {local}' >/dev/null");
    let output = host.sandbox.exec(["sh", "-c", &script])?;
    Ok(output.status.success())
}

#[test]
fn console_of_another_machine_is_forwarded_as_long_as_the_viewer_runs() -> anyhow::Result<()> {
    let host = host()?;
    program(&host, "/usr/local/bin/ssh", SSH)?;
    let arguments = ["-H", "root@web:2222", "view", "vm1", "--head=1"];
    let (code, said) = run(&host, DISPLAY, &arguments)?;
    assert_eq!(code, Some(7), "{said}");
    let local = forwarded(&host)?;
    assert!(
        said.contains(&format!("['{local}'] b'RFB 003.008\\n' 0o40700")),
        "{said}"
    );
    let log = fs::read_to_string(host.sandbox.path("/run/ssh"))?;
    let line = log.lines().last().context("no ssh")?;
    assert!(
        line.starts_with("-xTN -S none ")
            && line.contains(" ExitOnForwardFailure=yes ")
            && line.contains(&format!(" -L {local}:/run/vhost-user/vnc/vm1\\:1.sock "))
            && line.ends_with(" -p 2222 -- root@web"),
        "{line}"
    );
    ensure!(!is_forwarding(&host, &local)?, "ssh or its folder is left");

    // A signal ends it all.
    host.sandbox.write("/run/viewer-stays", "")?;
    let mut follower = Follower::start_with(&host.sandbox, DISPLAY, &["-H", "web", "view", "vm1"])?;
    follower.line("RFB 003.008")?;
    let local = forwarded(&host)?;
    ensure!(is_forwarding(&host, &local)?, "nothing is forwarded");
    follower.signal(rustix::process::Signal::TERM)?;
    assert_eq!(follower.wait()?, Some(128 + 15));
    ensure!(!is_forwarding(&host, &local)?, "ssh or its folder is left");

    // A socket that the user of the other machine may not connect to, and an ssh that fails.
    for verb in ["view", "screenshot"] {
        let (code, said) = run(&host, DISPLAY, &["-H", "refused", verb, "vm1"])?;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("The console of vm1 does not answer on refused."),
            "{said}"
        );
        let (code, said) = run(&host, DISPLAY, &["-H", "nowhere", verb, "vm1"])?;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("ssh to nowhere ended before it forwarded the socket"),
            "{said}"
        );
    }
    ensure!(!is_forwarding(&host, &forwarded(&host)?)?, "ssh is left");
    Ok(())
}

/// A colour for each place, as in a PNG.
fn colour(x: u32, y: u32) -> u32 {
    (x * 3) << 16 | (y * 5) << 8 | (x ^ y)
}

#[test]
fn screenshot_is_the_screen_of_the_guest() -> anyhow::Result<()> {
    const WIDTH: u32 = 64;
    const HEIGHT: u32 = 48;
    let host = host()?;
    // Nobody has drawn anything: no file.
    let (code, said) = run(&host, &[], &["screenshot", "vm1", "/tmp/none.png"])?;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("There is no screen to show"), "{said}");
    assert!(!host.sandbox.path("/tmp/none.png").exists());

    // The driver and the display of a VMM.
    let service = "vhost-user-gpu@vm1.service";
    host.sandbox
        .wait_property(service, "ActiveState", "inactive", SOON)?;
    let session = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    let memory = Memory::with_size(16 << 20)?;
    let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default())?;
    let backing = memory.alloc(u64::from(WIDTH * HEIGHT * 4), 4096)?;
    for (number, (x, y)) in (0..HEIGHT)
        .flat_map(|y| (0..WIDTH).map(move |x| (x, y)))
        .enumerate()
    {
        let pixel = colour(x, y).to_le_bytes();
        memory.write(backing + 4 * number as u64, &pixel)?;
    }
    let whole = Rect::sized(WIDTH, HEIGHT);
    gpu.create_2d(1, Format::B8G8R8X8, WIDTH, HEIGHT)?;
    gpu.attach_backing(1, &[(backing, WIDTH * HEIGHT * 4)])?;
    gpu.set_scanout(0, 1, whole)?;
    gpu.transfer_to_host_2d(1, whole, 0)?;
    gpu.flush(1, whole)?;

    let check = |bytes: &[u8]| -> anyhow::Result<()> {
        let image = Image::from_png(bytes)?;
        for (x, y) in (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y))) {
            ensure!(image.get(x, y) == Some(colour(x, y)), "{x},{y}");
        }
        ensure!(image.get(WIDTH, 0).is_none() && image.get(0, HEIGHT).is_none());
        Ok(())
    };
    let output = host.run(&["screenshot", "vm1", "-"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    check(&output.stdout)?;
    // Into the folder where it runs.
    let there = host
        .sandbox
        .exec(["sh", "-c", "cd /tmp && vhostctl screenshot vm1"])?;
    ensure!(there.status.success(), "{}", stderr(&there));
    assert_eq!(stderr(&there), "Wrote vm1.png (64x48).\n");
    check(&fs::read(host.sandbox.path("/tmp/vm1.png"))?)?;
    let json: Value =
        serde_json::from_str(&host.ok(&["screenshot", "vm1", "/tmp/b.png", "-j"])?)?;
    assert_eq!(json[0]["file"], "/tmp/b.png");
    assert_eq!(json[0]["width"], 64);
    // From another machine.
    program(&host, "/usr/local/bin/ssh", SSH)?;
    let output = host.run(&["-H", "web", "screenshot", "vm1", "-"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    check(&output.stdout)?;
    ensure!(!is_forwarding(&host, &forwarded(&host)?)?, "ssh is left");

    // A head that is off.
    let (code, said) = run(&host, &[], &["screenshot", "vm1", "-", "--head=1"])?;
    assert_eq!(code, Some(3), "{said}");
    gpu.set_scanout(0, 0, Rect::sized(0, 0))?;
    let (code, said) = run(&host, &[], &["screenshot", "vm1", "-"])?;
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("the guest of vm1 has not begun to draw, or has switched the display off"),
        "{said}"
    );
    // A file that cannot be written.
    gpu.set_scanout(0, 1, whole)?;
    gpu.flush(1, whole)?;
    let said = host.fails(&["screenshot", "vm1", "/nonexistent/a.png"], 1)?;
    assert!(
        said.contains("Failed to write /nonexistent/a.png: No such file"),
        "{said}"
    );
    drop((gpu, display));
    let (code, said) = run(&host, &[], &["screenshot", "vm1", "-"])?;
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("There is no screen to show: vm1 is off."),
        "{said}"
    );
    Ok(())
}

#[test]
fn viewers_are_counted_and_not_cut_off_unasked() -> anyhow::Result<()> {
    let host = host()?;
    host.sandbox.write("/run/viewer-stays", "")?;
    let mut follower = Follower::start_with(&host.sandbox, DISPLAY, &["view", "vm1"])?;
    follower.line("RFB 003.008")?;
    let deadline = std::time::Instant::now() + SOON;
    let status = loop {
        let status = host.ok(&["status", "vm1:vnc", "-n0"])?;
        if status.contains("Viewers: 1\n") {
            break status;
        }
        ensure!(std::time::Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(
        status.contains("Status: \"1 viewer: root (pid "),
        "{status}"
    );
    let json: Value = serde_json::from_slice(&host.run(&["status", "vm1:vnc", "-j"])?.stdout)?;
    assert_eq!(json[0]["viewers"], 1);
    for verb in ["stop", "remove"] {
        let said = host.fails(&[verb, "vm1"], 1)?;
        assert!(
            said.contains("vm1:vnc has viewers connected: they lose the screen."),
            "{said}"
        );
    }
    let said = host.fails(&["stop", "vm1:vnc"], 1)?;
    assert!(
        said.ends_with("Nothing was changed. Close the viewers first, or use --force.\n"),
        "{said}"
    );
    assert_eq!(host.state(VNC)?, "active");
    host.ok(&["stop", "vm1", "--force"])?;
    assert_eq!(host.state(VNC)?, "inactive");
    Ok(())
}

/// Who looks is disconnected, and nothing is left.
#[test]
fn console_that_somebody_looks_at_is_removed_by_force() -> anyhow::Result<()> {
    let host = host()?;
    let mut viewer = RfbViewer::connect(&host.sandbox.path(SOCKET), SOON)?;
    viewer.picture()?;
    let said = host.ok(&["remove", "vm1", "--force"])?;
    assert!(said.contains("Removed vm1:vnc."), "{said}");
    let ended = viewer.client().wait_until(|_| false);
    assert!(
        !matches!(&ended, Ok(()) | Err(ClientError::Timeout(_))),
        "{ended:?}"
    );
    assert_eq!(host.list()?, Vec::<Value>::new());
    // systemd leaves folders of sockets.
    let left = "ls -d /etc/systemd/system/vhost*vm1* /etc/systemd/system/*.wants/vhost*vm1* 2>/dev/null; \
        find /run/vhost-user /run/vhost-user-console ! -type d; \
        systemctl list-units --no-legend --all 'vhost*vm1*'";
    let left = host.sandbox.exec(["sh", "-c", left])?;
    let left = String::from_utf8(left.stdout)?;
    assert_eq!(left, "");
    Ok(())
}
