// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-accept: one connection, then the other program in its place.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::common::{gpu_program, guest_memory, ok};
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions};
use frontend::{Command, DEFAULT_LIMIT, FrontendReq, Program, Session, SocketForm};
use rustix::net::{self, AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;

const ACCEPT: &str = env!("CARGO_BIN_EXE_vhost-user-accept");

/// Started as by a socket unit.
fn accept(arguments: &[&str]) -> Program {
    let command = Command::new(ACCEPT)
        .args(arguments)
        .env("LISTEN_FDNAMES", "vhost-user");
    command.socket(SocketForm::Activation).spawn().unwrap()
}

#[test]
fn program_serves_on_the_accepted_connection() {
    let gpu = gpu_program();
    let gpu = gpu.to_str().unwrap();
    let mut program = accept(&[gpu, "--fd=3"]);
    let pid = program.pid();
    let mut session = program.session().unwrap();
    let offer = session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    assert!(offer.queues >= 2);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "vhost-user-gpu");
    drop(session);
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
}

#[test]
fn program_finds_the_connection_and_nothing_else() {
    let script = "exec 2>&1; for fd in /proc/$$/fd/*; do readlink $fd; done | grep -c socket; \
                  env | grep -c ^LISTEN_; cat <&3";
    let mut program = accept(&["/bin/sh", "-c", script]);
    let mut connection = program.connect().unwrap();
    std::io::Write::write_all(&mut connection, b"hello").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    assert_eq!(program.stdout(), "1\n0\nhello");
}

/// As virgl_render_server does. `vhost-render-server@.service` starts it so.
#[test]
fn program_may_take_a_connection_of_packets() {
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddrUnix::new(folder.path().join("socket")).unwrap();
    let packets = || {
        let kind = SocketType::SEQPACKET;
        net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    };
    let listen = || {
        let listener = packets();
        net::bind(&listener, &address).unwrap();
        net::listen(&listener, 1).unwrap();
        listener
    };
    // systemd is the parent of what it passes a socket to, and knows its process ID.
    let start = |listener: OwnedFd, arguments: &[&str]| {
        Command::new("/bin/sh")
            .args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", "sh", ACCEPT])
            .args(arguments)
            .descriptor(listener)
            .spawn()
            .unwrap()
    };
    let mut program = start(listen(), &["/bin/sh", "-c", "cat <&3"]);
    let client = packets();
    net::connect(&client, &address).unwrap();
    for packet in [b"one", b"two"] {
        let flags = SendFlags::empty();
        assert_eq!(net::send(&client, packet, flags), Ok(packet.len()));
    }
    drop(client);
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    assert_eq!(program.stdout(), "onetwo");

    // A connection that was left costs no start, as long as there is another one.
    std::fs::remove_file(folder.path().join("socket")).unwrap();
    let listener = listen();
    let [left, client] = [(); 2].map(|()| {
        let client = packets();
        net::connect(&client, &address).unwrap();
        net::send(&client, b"packet", SendFlags::empty()).unwrap();
        client
    });
    drop(left);
    net::send(&client, b" of the second", SendFlags::empty()).unwrap();
    let mut program = start(listener, &["/bin/sh", "-c", "cat <&3"]);
    drop(client);
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    assert!(program.stdout().ends_with(" of the second"));

    // Nobody could forward packets.
    std::fs::remove_file(folder.path().join("socket")).unwrap();
    let mut program = start(listen(), &["--socket-path=/nonexistent", "/bin/true"]);
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
    let said = program.stderr();
    assert!(
        said.contains("not a listening Unix stream socket"),
        "{said}"
    );
}

#[test]
fn front_end_is_told_that_the_program_is_missing() {
    let mut program = accept(&["/nonexistent/back\x1b[2Jend", "--fd=3"]);
    let mut connection = program.connect().unwrap();
    assert_eq!(connection.read(&mut [0; 8]).unwrap_or(0), 0);
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
    let said = program.stderr();
    assert!(
        said.contains(r"cannot run /nonexistent/back\x1b[2Jend: No such file"),
        "{said}"
    );
}

#[test]
fn wait_for_a_connection_ends_on_sigterm() {
    let mut program = accept(&["/bin/true"]);
    // It has read its options once it waits.
    frontend::Deadline::default()
        .until("its wait", || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", program.pid()));
            let number = format!("{} ", libc::SYS_accept4);
            Ok(call
                .is_ok_and(|call| call.starts_with(&number))
                .then_some(()))
        })
        .unwrap();
    program.signal(Signal::TERM).unwrap();
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(Signal::TERM.as_raw())
    );
}

#[test]
fn closed_connection_is_passed_on() {
    let mut program = accept(&["/bin/cat", "/proc/self/fdinfo/3"]);
    drop(program.connect().unwrap());
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
}

#[test]
fn socket_of_another_kind_is_refused() {
    for (form, message) in [
        (SocketForm::None, "start it by socket activation"),
        (
            SocketForm::ActivationOfAnother,
            "start it by socket activation",
        ),
    ] {
        let mut program = Command::new(ACCEPT)
            .arg("/bin/true")
            .socket(form)
            .spawn()
            .unwrap();
        let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(program.stderr().contains(message), "{}", program.stderr());
    }
    let mut program = accept(&["true"]);
    assert_eq!(program.wait_exit(DEFAULT_LIMIT).unwrap().code(), Some(2));
    assert!(program.stderr().contains("absolute path"));
}

/// Started beside `program`, which listens at a path by itself.
fn beside(folder: &tempfile::TempDir, program: &str, arguments: &[&str]) -> Program {
    let path = folder.path().join("backend.sock").display().to_string();
    let option = format!("--socket-path={path}");
    // Where it does not listen.
    let other = format!("--socket-path={path}0");
    let replaced: Vec<_> = arguments
        .iter()
        .map(|word| word.replace("{socket}", &path))
        .collect();
    let mut words = vec![other.as_str(), option.as_str(), program];
    words.extend(replaced.iter().map(String::as_str));
    accept(&words)
}

/// The folder in `/proc` of the program beside it.
fn child_of(program: &Program) -> PathBuf {
    let children = format!("/proc/{0}/task/{0}/children", program.pid());
    let child = std::fs::read_to_string(children).unwrap();
    PathBuf::from("/proc").join(child.trim())
}

#[test]
fn program_that_listens_by_itself_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let gpu = gpu_program();
    let mut program = beside(&folder, gpu.to_str().unwrap(), &["--socket-path={socket}"]);
    // Descriptors of memory, rings and the display go by the way of the messages.
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let session = program.session().unwrap();
    let options = GpuOptions::default();
    let mut gpu = Gpu::start(session, &guest_memory(), Some(socket), options).unwrap();
    ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
    let child = child_of(&program);
    drop((gpu, display));
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    assert!(!child.exists());
    assert!(!folder.path().join("backend.sock").exists());
}

#[test]
fn program_that_outlives_the_front_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let script = "exec /usr/bin/python3 -c '
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    connection = listener.accept()[0]
    while connection.recv(64):
        connection.send(bytes([1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0] + 8 * [7]))
' {socket}";
    let mut program = beside(&folder, "/bin/sh", &["-c", script]);
    let mut session = program.session().unwrap();
    assert_eq!(
        session.get_u64(FrontendReq::GET_FEATURES).unwrap(),
        0x0707_0707_0707_0707
    );
    drop(session);
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
}

#[test]
fn front_end_is_told_that_the_program_ended() {
    for (arguments, message) in [
        (["-c", "exit 7"], "/bin/sh ended: exit status: 7"),
        (["-c", "kill -SEGV $$"], "/bin/sh ended: signal: 11"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = beside(&folder, "/bin/sh", &arguments);
        let mut connection = program.connect().unwrap();
        assert_eq!(connection.read(&mut [0; 8]).unwrap_or(0), 0);
        assert_eq!(program.wait_exit(DEFAULT_LIMIT).unwrap().code(), Some(1));
        assert!(program.stderr().contains(message), "{}", program.stderr());
    }
}
