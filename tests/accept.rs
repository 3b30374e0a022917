//! vhost-user-accept: one connection, then the other program in its place.

mod common;

use std::io::Read as _;

use common::gpu_program;
use frontend::{Command, DEFAULT_LIMIT, Program, Session, SocketForm};
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
fn program_finds_the_connection_alone() {
    let script = "exec 2>&1; for fd in /proc/$$/fd/*; do readlink $fd; done | grep -c socket; \
                  env | grep -c ^LISTEN_; cat <&3";
    let mut program = accept(&["/bin/sh", "-c", script]);
    let mut connection = program.connect().unwrap();
    std::io::Write::write_all(&mut connection, b"hello").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    assert_eq!(program.stdout(), "1\n0\nhello");
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
fn connection_that_left_is_passed_on_all_the_same() {
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
