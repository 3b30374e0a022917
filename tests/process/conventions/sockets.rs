// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which sockets a program accepts, and what it does with a file at their path.

use super::*;

#[test]
fn exactly_one_socket_is_required() {
    for command in programs() {
        let mut program = command.spawn().unwrap();
        assert_early_failure(&mut program, &["--socket-path", "--fd"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let (_ours, theirs) = UnixStream::pair().unwrap();
    for command in programs() {
        let option = format!("--socket-path={}", path.display());
        let socket = theirs.try_clone().unwrap();
        let command = command.arg(option).arg("--fd=3").descriptor(socket);
        assert_early_failure(&mut command.spawn().unwrap(), &["--socket-path", "--fd"]);
        assert!(!path.exists());
    }
}

/// One socket may have any name.
#[test]
fn only_activated_socket_may_have_any_name() {
    for name in ["vhost-user", "vhost-user-gpu@vm.socket"] {
        for form in [SocketForm::Activation, SocketForm::Listening(3)] {
            let command = gpu_command(form);
            let mut program = command.env("LISTEN_FDNAMES", name).spawn().unwrap();
            serve_once(program.session().unwrap());
            assert_clean_exit(&mut program);
        }
    }
}

/// A socket that nobody would serve is a failed start: its clients would wait for ever.
#[test]
fn activated_socket_of_no_use_is_refused() {
    for names in [["vhost-user", "other"], ["other", "vhost-user"]] {
        for command in programs() {
            let mut program = command.activated(&names).waiting(2).spawn().unwrap();
            assert_early_failure(&mut program, &["\"other\"", "LISTEN_FDNAMES"]);
            assert_waiting_closed(&mut program, &format!("{names:?}"));
        }
    }
}

#[test]
fn descriptor_other_than_a_stream_socket_is_refused() {
    for command in programs() {
        assert_early_failure(&mut command.arg("--fd=9").spawn().unwrap(), &["9"]);
    }
    for word in ["--fd=", "--fd=x", "--fd=-1", "--fd=99999999999"] {
        for command in programs() {
            assert_early_failure(&mut command.arg(word).spawn().unwrap(), &["--fd"]);
        }
    }
    for command in programs() {
        let file = File::open("/proc/self/cmdline").unwrap();
        let mut program = command.arg("--fd=3").descriptor(file).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
    for command in programs() {
        let (datagrams, _other) = UnixDatagram::pair().unwrap();
        let mut program = command.arg("--fd=3").descriptor(datagrams).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
    for command in programs() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut program = command.arg("--fd=3").descriptor(tcp).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
}

#[test]
fn impossible_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/sock");
    // A path of 108 bytes, one too many.
    let mut long = folder
        .path()
        .join("x")
        .into_os_string()
        .into_string()
        .unwrap();
    long.push_str(&"x".repeat(108 - long.len()));
    for (path, word) in [
        (missing.display().to_string(), "missing"),
        (long.clone(), "107"),
    ] {
        let option = format!("--socket-path={path}");
        let mut program = Command::new(gpu_program()).arg(option).spawn().unwrap();
        assert_early_failure(&mut program, &[word]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // One byte less fits.
    long.pop();
    let mut program = at_path(Path::new(&long));
    connect(&mut program, Path::new(&long));
}

#[test]
fn files_other_than_sockets_are_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let dir = folder.path().join("folder");
    fs::create_dir(&dir).unwrap();
    for path in [&file, &link, &dir] {
        let mut program = at_path(path);
        assert_early_failure(&mut program, &[&path.display().to_string()]);
    }
    assert_eq!(fs::read_to_string(&link).unwrap(), "precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(dir.is_dir());
}

#[test]
fn live_socket_is_refused_and_its_process_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let mut first = at_path(&path);
    wait_for_socket(&mut first, &path);
    for _ in 0..3 {
        assert_early_failure(&mut at_path(&path), &[&path.display().to_string()]);
    }
    // The first has noticed nothing, not even a front-end that came and went.
    serve_once(Session::new(connect(&mut first, &path)));
    assert_clean_exit(&mut first);
}

/// A foreign listener that accepts nobody is alive too, even with a full backlog.
#[test]
fn live_listener_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    // Often: an end that is a race of threads is not the same each time.
    for _ in 0..30 {
        assert_early_failure(&mut at_path(&path), &[&path.display().to_string()]);
    }
    let nobody = listener.accept().unwrap_err();
    assert_eq!(
        nobody.kind(),
        std::io::ErrorKind::WouldBlock,
        "it was connected to"
    );
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn foreign_file_at_the_path_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let option = format!("--socket-path={}", path.display());
    let command = Command::new(gpu_program()).arg(option).notify();
    let mut program = command.spawn().unwrap();
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut program);
    assert!(path.exists(), "another process's socket was removed");
}
