// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The display socket in all its forms, and the end of a program that only consoles started.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;

use super::*;

const NAMES: [[&str; 2]; 2] = [["vhost-user", "display"], ["display", "vhost-user"]];

/// A front-end and a console are served.
fn assert_serves(mut program: Program, socket: UnixStream) {
    let console = DisplayThread::on(socket, DisplayOptions::default()).unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    wait_off(&console, 0);
    program.try_exit().unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, XRGB, SIZE);
    show_on_0(&mut vm.gpu, ALL);
    for display in [&console, &vm.display] {
        wait_shows(display, 0, SIZE, pattern);
    }
    console.finish().unwrap();
    vm.finish();
}

#[test]
fn display_socket_is_found_in_all_its_forms() {
    for names in NAMES {
        let command = gpu_command(SocketForm::None).activated(&names);
        let mut program = command.spawn().unwrap();
        let socket = program.connect_further("display").unwrap();
        assert_serves(program, socket);
    }
    for form in [SocketForm::Path, SocketForm::Listening(3)] {
        let mut program = gpu_command(form).listen("display").spawn().unwrap();
        let socket = program.connect_further("display").unwrap();
        let path = program.further_path("display");
        assert_serves(program, socket);
        assert!(!path.exists(), "the socket stays behind");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("display");
    let listener = UnixListener::bind(&path).unwrap();
    let command = gpu_command(SocketForm::Connected(7)).arg("--display-fd=5");
    let program = command.pass(5, listener).spawn().unwrap();
    assert_serves(program, UnixStream::connect(&path).unwrap());
}

#[test]
fn unusable_display_sockets_fail_early() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("--display-socket={}/missing/s", folder.path().display());
    let cases: [(&[&str], &str); 4] = [
        (&[&missing], "--display-socket="),
        (&["--display-fd=9"], "--display-fd=9"),
        (&["--display-fd=3"], "named twice"),
        (&["--display-fd=3", "--display-socket=x"], "--display-fd"),
    ];
    for (args, message) in cases {
        let command = gpu_command(SocketForm::Listening(3)).args(args).waiting(2);
        let mut program = command.spawn().unwrap();
        assert_early_failure(&mut program, &[message]);
        for stream in program.take_waiting() {
            assert_closed(&stream);
        }
    }
    // A connected socket is no place to connect to.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let command = gpu_command(SocketForm::Connected(7)).arg("--display-fd=5");
    let mut program = command.pass(5, ours).spawn().unwrap();
    assert_early_failure(&mut program, &["5", "listening"]);
}

/// Nobody waits for ever, and nothing is left by which the service manager would start the program again.
#[test]
fn failed_start_closes_the_connections_on_all_sockets() {
    for names in NAMES {
        for args in [
            "--render-node=/missing/renderD128",
            "--no-such-option",
            "--resolution=0x0",
        ] {
            let command = gpu_command(SocketForm::None).activated(&names);
            let mut program = command.arg(args).waiting(2).spawn().unwrap();
            assert_early_failure(&mut program, &[]);
            let waiting = program.take_waiting();
            assert_eq!(waiting.len(), 4);
            for stream in waiting {
                assert_closed(&stream);
            }
            let further = program.further_listeners().iter();
            for listener in further
                .map(|(_, listener)| listener)
                .chain(program.listener())
            {
                listener.set_nonblocking(true).unwrap();
                let left = listener.accept().map(drop).unwrap_err();
                assert_eq!(left.kind(), ErrorKind::WouldBlock, "{args}");
            }
        }
    }
}

/// A service manager's sockets are still there: it starts the program again for whoever comes next.
#[test]
fn program_ends_when_the_last_console_left_before_a_front_end_came() {
    for names in NAMES {
        let command = gpu_command(SocketForm::None).activated(&names).notify();
        let mut program = command.spawn().unwrap();
        let consoles: Vec<_> = (0..2).map(|_| console(&mut program)).collect();
        consoles.iter().for_each(|console| wait_off(console, 0));
        for console in consoles {
            assert!(
                program.try_exit().unwrap().is_none(),
                "{}",
                program.stderr()
            );
            console.finish().unwrap();
        }
        assert_clean_exit(&mut program);
        let said = "the last client left, and no front-end is connected";
        assert_eq!(program.stderr().matches(said).count(), 1);
    }
}

/// Also one that left before it was accepted.
#[test]
fn program_ends_after_a_console_that_left_at_once() {
    let command = gpu_command(SocketForm::None).activated(&NAMES[0]);
    let mut program = command.waiting(0).spawn().unwrap();
    drop(program.connect_further("display").unwrap());
    assert_clean_exit(&mut program);
}

/// A front-end that comes while the last console leaves is served, or waits for the next start.
#[test]
fn front_end_that_comes_as_the_last_console_leaves_is_not_lost() {
    let mut served = 0;
    for _ in 0..10 {
        let command = gpu_command(SocketForm::None).activated(&NAMES[1]);
        let mut program = command.spawn().unwrap();
        let socket = program.connect_further("display").unwrap();
        let last = DisplayThread::on(socket, DisplayOptions::default()).unwrap();
        wait_off(&last, 0);
        drop(last);
        let mut session = program.session().unwrap();
        let usual = frontend::Session::usual_protocol_features();
        if session.negotiate(usual).is_ok() {
            served += 1;
            // It ends with its front-end, as always.
            session.config(0, 16).unwrap();
            drop(session);
            assert_clean_exit(&mut program);
            continue;
        }
        assert_clean_exit(&mut program);
        let listener = program.listener().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok(), "it is gone from the queue");
    }
    println!("{served} of 10 were served at once");
}

#[test]
fn program_with_sockets_of_its_own_waits_on() {
    for form in [SocketForm::Path, SocketForm::Listening(3)] {
        let mut program = gpu_command(form).listen("display").spawn().unwrap();
        for _ in 0..2 {
            let console = console(&mut program);
            wait_off(&console, 0);
            console.finish().unwrap();
        }
        let socket = program.connect_further("display").unwrap();
        assert_serves(program, socket);
    }
}

/// The end of the last console is no end while a front-end is served.
#[test]
fn program_serves_its_front_end_without_consoles() {
    let command = gpu_command(SocketForm::None).activated(&NAMES[0]);
    let mut program = command.spawn().unwrap();
    let first = console(&mut program);
    wait_off(&first, 0);
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, XRGB, SIZE);
    first.finish().unwrap();
    show_on_0(&mut vm.gpu, ALL);
    wait_shows(&vm.display, 0, SIZE, pattern);
    let socket = vm.program.connect_further("display").unwrap();
    let second = DisplayThread::on(socket, DisplayOptions::default()).unwrap();
    wait_shows(&second, 0, SIZE, pattern);
    drop(second);
    vm.finish();
}
