// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who reaches a console: its viewers, the devices' sockets, and other VMs.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, ensure};
use frontend::Deadline;
use rfb::client::Client;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use super::{DEVICES, Host, SOON, sees, services, shows_something, wait_closed};
use crate::common::pattern;

const SIZE: (u32, u32) = (320, 200);
/// The user and group of a viewer.
const VIEWER: &str = "daemon";
/// Another user, without a name.
const OTHER: u32 = 4242;
const MAX_VIEWERS: usize = 32;

impl Host {
    /// The mode, the owner and the group of a file inside.
    fn access(&self, path: &str) -> anyhow::Result<(u32, u32, u32)> {
        let metadata = self.0.path(path).metadata();
        let metadata = metadata.with_context(|| path.to_owned())?;
        Ok((
            metadata.permissions().mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
        ))
    }

    /// Whether a user can connect to a socket, in the place of a process if one is named.
    fn reaches(&self, user: &str, place: Option<&str>, socket: &str) -> anyhow::Result<bool> {
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let enter = place.map(|pid| {
            vec![
                "nsenter".into(),
                format!("--target={pid}"),
                "--mount".into(),
                "--".into(),
            ]
        });
        let connect = format!("import socket\nsocket.socket(socket.AF_UNIX).connect({socket:?})");
        let mut line = enter.unwrap_or_default();
        line.extend([
            "setpriv".into(),
            ids[0].clone(),
            ids[1].clone(),
            "--clear-groups".into(),
        ]);
        line.extend(["/usr/bin/python3".into(), "-c".into(), connect]);
        let run = self.0.exec(&line)?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let refused = ["PermissionError", "FileNotFoundError"];
        ensure!(
            run.status.success() || refused.iter().any(|word| said.contains(word)),
            "{said}"
        );
        Ok(run.status.success())
    }
}

fn device_sockets(vm: &str) -> Vec<String> {
    let events = DEVICES.map(|device| format!("/run/vhost-user-console/{vm}:{device}/events.sock"));
    let display = format!("/run/vhost-user-console/{vm}/display.sock");
    [display].into_iter().chain(events).collect()
}

#[test]
fn nobody_but_root_and_who_was_named_can_look() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let socket = "/run/vhost-user/vnc/vm1.sock";
    ensure!(host.access(socket)? == (0o600, 0, 0));
    ensure!(host.access("/run/vhost-user-console")? == (0o700, 0, 0));
    let others = device_sockets("vm1");
    for path in &others {
        ensure!(host.access(path)? == (0o666, 0, 0), "{path}");
    }
    for path in others.iter().map(String::as_str).chain([socket]) {
        ensure!(!host.reaches(VIEWER, None, path)?, "{path}");
        ensure!(host.reaches("0", None, path)?, "{path}");
    }
    // Who may look reaches nothing else.
    let owner = format!("[Socket]\nSocketUser={VIEWER}\n");
    host.0.drop_in("vhost-vnc@vm1.socket", &owner)?;
    host.0.systemctl(&["stop", "vhost-vnc@vm1.socket"])?;
    host.0.systemctl(&["start", "vhost-vnc@vm1.socket"])?;
    ensure!(host.reaches(VIEWER, None, socket)?);
    for path in &others {
        ensure!(!host.reaches(VIEWER, None, path)?, "{path}");
    }
    Ok(())
}

/// One who may look keeps nobody else from it, with viewers or with connections that say nothing.
#[test]
fn user_with_many_viewers_makes_room_for_others() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.0
        .drop_in("vhost-vnc@vm1.socket", "[Socket]\nSocketMode=0666\n")?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let folder = host.0.path("/run/vhost-user/vnc");
    let connect = |count| connections_of(OTHER, &folder, "vm1.sock", count);
    let mut others = Vec::new();
    for stream in connect(MAX_VIEWERS)? {
        others.push(Client::connect(stream, SOON)?);
    }
    let silent = connect(2 * MAX_VIEWERS)?;
    let refused = Client::connect(connect(1)?.remove(0), SOON);
    let reason = refused.err().map(|error| error.to_string());
    ensure!(
        reason
            .as_ref()
            .is_some_and(|why| why.contains("32 viewers")),
        "{reason:?}"
    );
    // Root has as many as it asks for, up to its share.
    let mut ours = Vec::new();
    for _ in 0..3 {
        let mut viewer = host.view("vm1")?;
        viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
        ours.push(viewer);
        wait_closed(&mut others.pop().context("no viewer")?)?;
    }
    for viewer in others.iter_mut().chain(&mut ours) {
        viewer.refresh()?;
        viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    }
    drop(silent);
    Ok(())
}

/// Connections by a process of another user.
fn connections_of(
    user: u32,
    folder: &Path,
    socket: &str,
    count: usize,
) -> anyhow::Result<Vec<UnixStream>> {
    // The user does not get there by its path.
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{socket}", folder.as_raw_fd());
    let connect = || {
        let user = Uid::from_raw(user);
        // Of this thread alone.
        set_thread_res_uid(user, user, user)?;
        let streams = (0..count).map(|_| UnixStream::connect(&path));
        Ok(streams.collect::<Result<_, _>>()?)
    };
    let thread = std::thread::scope(|scope| scope.spawn(connect).join());
    thread.map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

#[test]
fn folder_that_was_open_is_closed() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let made = host.0.exec([
        "install",
        "-d",
        "-m",
        "0777",
        "-o",
        VIEWER,
        "/run/vhost-user-console",
    ])?;
    ensure!(made.status.success(), "{made:?}");
    for socket in [
        "vhost-user-display@vm1.socket",
        "vhost-user-events@vm1:keyboard.socket",
        "vhost-vnc@vm1.socket",
    ] {
        host.0.systemctl(&["start", socket])?;
        ensure!(
            host.access("/run/vhost-user-console")? == (0o700, 0, 0),
            "{socket}"
        );
        let opened = host.0.exec(["chmod", "0777", "/run/vhost-user-console"])?;
        ensure!(opened.status.success(), "{opened:?}");
    }
    Ok(())
}

#[test]
fn console_reaches_its_own_vm_only() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut viewers = Vec::new();
    for vm in ["vm1", "vm2"] {
        host.add_console(vm)?;
        let mut viewer = host.view(vm)?;
        viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
        viewers.push(viewer);
    }
    let (user1, pid1) = host.process("vhost-vnc@vm1.service")?;
    let (user2, pid2) = host.process("vhost-vnc@vm2.service")?;
    ensure!(user1 != user2 && user1 != "0" && user2 != "0");
    // By the ways of its own place, it reaches its own VM; root reaches the same.
    for (user, pid) in [(&user1, &pid1), (&user2, &pid2)] {
        for path in [
            "display/display.sock",
            "keyboard/events.sock",
            "tablet/events.sock",
        ] {
            let path = format!("/run/vhost-vnc/{path}");
            ensure!(host.reaches(user, Some(pid), &path)?, "{path}");
            ensure!(!host.reaches(user, None, &path)?, "{path} is there for all");
        }
    }
    // By those of the host it reaches nothing, of its own VM neither. In its own place there is nothing, not even for
    // root: the program may connect to any socket that it sees.
    let vmm = [
        "gpu/vm1",
        "gpu/vm2",
        "input/vm1:keyboard",
        "input/vm2:tablet",
        "vnc/vm1",
        "vnc/vm2",
    ];
    let vmm = vmm.map(|socket| format!("/run/vhost-user/{socket}.sock"));
    for path in [device_sockets("vm1"), device_sockets("vm2"), vmm.to_vec()].concat() {
        ensure!(!host.reaches(&user1, None, &path)?, "{path}");
        ensure!(!host.reaches("0", Some(&pid1), &path)?, "{path} is there");
        ensure!(host.reaches("0", None, &path)?, "{path} by root");
    }
    let bus = "/run/dbus/system_bus_socket";
    ensure!(host.reaches(&user1, None, bus)?, "anybody's");
    ensure!(!host.reaches(&user1, Some(&pid1), bus)?);
    Ok(())
}

/// The sockets may come and go while the service runs.
#[test]
fn sockets_of_devices_may_start_after_the_console() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.write_console("vm1")?;
    host.0.systemctl(&["start", "vhost-vnc@vm1.socket"])?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    for _ in 0..2 {
        host.start(&super::sockets("vm1"))?;
        let mut vm = host.run_vm("vm1")?;
        vm.show(0, SIZE, pattern);
        viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
        for down in [true, false] {
            viewer.key(0x61, down)?;
            vm.keyboard.next_report()?;
        }
        drop(vm);
        let stopped = ["gpu@vm1", "input@vm1:keyboard", "input@vm1:tablet"];
        let stopped = stopped.map(|unit| format!("vhost-user-{unit}.socket"));
        host.0
            .systemctl(&["stop", &stopped[0], &stopped[1], &stopped[2]])?;
        for path in device_sockets("vm1") {
            ensure!(!host.0.path(&path).exists(), "{path}");
        }
        for service in &services("vm1")[1..] {
            host.wait_end(service)?;
        }
    }
    Ok(())
}

/// A port of a drop-in works with all restrictions of the service: systemd opened it.
#[test]
fn port_of_a_drop_in_shows_the_first_screen() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.0.drop_in(
        "vhost-vnc@vm1.socket",
        "[Socket]\nListenStream=127.0.0.1:5901\n",
    )?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let mut beside = host.view("vm1")?;
    beside.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    // A viewer on this host: as it is a host of its own, one that runs inside.
    let look = "import socket, struct\n\
        s = socket.create_connection(('127.0.0.1', 5901), 60)\n\
        def take(n):\n\
        \x20   d = b''\n\
        \x20   while len(d) < n: d += s.recv(n - len(d)) or exit('closed')\n\
        \x20   return d\n\
        take(12); s.send(b'RFB 003.008\\n')\n\
        take(take(1)[0]); s.send(b'\\1'); take(4); s.send(b'\\1')\n\
        print(*struct.unpack('>HH', take(24)[:4]))\n";
    let run = host.0.exec(["/usr/bin/python3", "-c", look])?;
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    ensure!(said == "320 200\n", "{said}");
    Deadline::default().until("the log to name the viewer", || {
        let log = host.log("vhost-vnc@vm1.service");
        Ok(log
            .contains("viewer connected: somebody, head 0")
            .then_some(()))
    })?;
    Ok(())
}

/// Who looks is in the status and in the log.
#[test]
fn status_names_who_looks() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.0
        .drop_in("vhost-vnc@vm1.socket", "[Socket]\nSocketUser=daemon\n")?;
    host.add_console("vm1")?;
    let look = "import socket\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.connect('/run/vhost-user/vnc/vm1.sock')\n\
        s.recv(12); s.send(b'RFB 003.008\\n'); s.recv(2); s.send(b'\\1'); s.recv(4); s.send(b'\\1')\n\
        s.recv(1000); s.recv(1)\n";
    let line = [
        "setpriv",
        "--reuid=daemon",
        "--regid=daemon",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        look,
    ];
    let mut viewer = host.0.command(line).spawn()?;
    let service = "vhost-vnc@vm1.service";
    let told = Deadline::default().until("the status to name the viewer", || {
        let status = host.0.property(service, "StatusText").unwrap_or_default();
        Ok(status.contains("daemon (pid ").then_some(status))
    });
    // It goes when it is disconnected.
    host.0.systemctl(&["stop", "vhost-vnc@vm1.socket"])?;
    viewer.wait()?;
    let told = told.with_context(|| host.log(service))?;
    ensure!(told.contains("1 viewer"), "{told}");
    ensure!(
        host.log(service).contains("daemon"),
        "{}",
        host.log(service)
    );
    Ok(())
}
