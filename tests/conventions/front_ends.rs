//! Who is served, and with what.

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

/// Messages no front-end sends: whatever happens, the program ends or goes on, and never hangs.
#[test]
fn hostile_messages_are_survived() {
    let messages: [&[u8]; 8] = [
        &[0xff; 64],
        &[0; 12],
        // An unknown request, an unknown version.
        &[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        // A body that is too large, too short, too long.
        &[2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7],
        &[3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4],
        // GPU_SET_SOCKET without a socket.
        &[33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    for message in messages {
        let mut program = gpu_command(SocketForm::Connected(6)).spawn().unwrap();
        let session = program.session().unwrap();
        session.channel.send_bytes(message, &[]).unwrap();
        drop(session);
        let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
        assert!(status.code().is_some(), "{message:?}: {status}");
        assert!(
            !program.stderr().contains("panicked"),
            "{message:?}: {}",
            program.stderr()
        );
    }
}

/// QEMU lets a guest take the legacy features that it hides from it, and choose queues of up to 1024
/// entries, whatever the device's own are, and passes both on.
#[test]
fn what_a_guest_may_choose_does_not_end_the_connection() {
    let mut program = gpu_command(SocketForm::Connected(6)).spawn().unwrap();
    let mut session = program.session().unwrap();
    assert_choices(&mut session);
    drop(session);
    assert_clean_exit(&mut program);
}

#[test]
fn a_second_front_end_does_not_disturb_the_first() {
    let mut program = gpu_command(SocketForm::Path).spawn().unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    let second = UnixStream::connect(program.socket_path());
    let third = UnixStream::connect(program.socket_path());
    session.set_features(1 << 32 | 1 << 30).unwrap();
    session.config(0, 16).unwrap();
    drop((second, third));
    session.config(0, 16).unwrap();
    drop(session);
    assert_clean_exit(&mut program);
}
