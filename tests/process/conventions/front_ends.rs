// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which front-ends a program serves, and in which order.

use super::*;

#[test]
fn every_form_of_socket_is_served() {
    for form in FORMS {
        let mut program = gpu_command(form).notify().spawn().unwrap();
        serve_once(program.session().unwrap());
        assert_clean_exit(&mut program);
        if form == SocketForm::Path {
            assert!(!program.socket_path().exists(), "the socket stays behind");
        }
        if matches!(form, SocketForm::Listening(_) | SocketForm::Activation) {
            // The service manager's socket is still good: the next program serves the next one.
            assert!(
                UnixStream::connect(program.socket_path()).is_ok(),
                "{form:?}"
            );
        }
    }
}

#[test]
fn sockets_of_another_process_are_not_taken() {
    let mut program = gpu_command(SocketForm::ActivationOfAnother)
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["--socket-path", "--fd"]);
}

/// QEMU lets a guest take the legacy features that it hides from it, and choose queues of up to 1024
/// entries, whatever the device's own are, and passes both on.
#[test]
fn guest_choices_do_not_end_the_connection() {
    let mut program = gpu_command(SocketForm::Connected(6)).spawn().unwrap();
    let mut session = program.session().unwrap();
    assert_choices(&mut session);
    drop(session);
    assert_clean_exit(&mut program);
}

/// By the process that connects: this one.
fn own_peer() -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!("pid {}, uid {uid}", std::process::id())
}

#[test]
fn second_front_end_on_its_own_socket_is_turned_away_and_reported() {
    let mut program = gpu_command(SocketForm::Path).spawn().unwrap();
    let session = program.session().unwrap();
    let mut second = UnixStream::connect(program.socket_path()).unwrap();
    let end = std::io::Read::read(&mut second, &mut [0]).unwrap();
    assert_eq!(end, 0, "it is not turned away");
    let peer = own_peer();
    let reported = format!("turned away another front-end: {peer}; connected: {peer}");
    program.wait_stderr(&reported).unwrap();
    drop(session);
    assert_clean_exit(&mut program);
    assert_eq!(program.stderr().matches(&reported).count(), 1);
}

/// A socket whose manager keeps no connections: who waits stays in its queue, for the next program.
#[test]
fn second_front_end_on_a_shared_socket_is_reported_and_left_to_the_next_program() {
    for form in [SocketForm::Listening(3), SocketForm::Activation] {
        let mut program = gpu_command(form).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        let _second = UnixStream::connect(program.socket_path()).unwrap();
        let _third = UnixStream::connect(program.socket_path()).unwrap();
        let reported = format!(
            "another front-end waits on {}",
            program.socket_path().display()
        );
        program.wait_stderr(&reported).unwrap();
        session.config(0, 16).unwrap();
        drop(session);
        assert_clean_exit(&mut program);
        assert_eq!(program.stderr().matches(&reported).count(), 1);
        let listener = program.listener().unwrap();
        listener.set_nonblocking(true).unwrap();
        for _ in 0..2 {
            listener.accept().expect("it is gone from the queue");
        }
    }
}

/// A service manager that keeps connections: who waits is accepted, named, and given to it for the next start.
#[test]
fn second_front_end_is_named_and_kept_by_the_service_manager() {
    let mut program = gpu_command(SocketForm::Activation)
        .env("FDSTORE", "1")
        .notify()
        .spawn()
        .unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    let is_status = |text: String| {
        move |n: &frontend::Notification| n.name == "STATUS" && n.value.contains(&text)
    };
    let waits = format!(", another waits ({})", own_peer());
    // One that leaves again is forgotten.
    for _ in 0..2 {
        let second = UnixStream::connect(program.socket_path()).unwrap();
        let notify = program.notify().unwrap();
        let limit = Duration::from_secs(30);
        notify
            .wait_for("who waits", limit, is_status(waits.clone()))
            .unwrap();
        drop(second);
        program
            .wait_stderr(&format!(
                "the waiting front-end disconnected: {}",
                own_peer()
            ))
            .unwrap();
    }
    let _second = UnixStream::connect(program.socket_path()).unwrap();
    let peer = own_peer();
    let reported =
        format!("another front-end waits until this one disconnects: {peer}; connected: {peer}");
    let thrice = || Ok((program.stderr().matches(&reported).count() == 3).then_some(()));
    Deadline::after(Duration::from_secs(30))
        .until("the report", thrice)
        .unwrap();
    session.config(0, 16).unwrap();
    drop(session);
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(75), "{}", program.stderr());
    let notify = program.notify().unwrap();
    assert_eq!(notify.count("FDSTORE", "1").unwrap(), 1);
    assert_eq!(notify.count("FDNAME", "front-end").unwrap(), 1);
}

#[test]
fn second_front_end_is_kept_if_the_first_one_is_at_fault() {
    let mut program = gpu_command(SocketForm::Activation)
        .env("FDSTORE", "1")
        .notify()
        .spawn()
        .unwrap();
    let session = program.session().unwrap();
    let _second = UnixStream::connect(program.socket_path()).unwrap();
    program.wait_stderr("another front-end waits").unwrap();
    // A header that is no request's.
    session.channel.send_bytes(&[0xff; 64], &[]).unwrap();
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(76), "{}", program.stderr());
    let notify = program.notify().unwrap();
    assert_eq!(notify.count("FDSTORE", "1").unwrap(), 1);
}
