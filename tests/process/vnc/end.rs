// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How it starts and ends, and what it tells the service manager.

use std::path::Path;
use std::time::{Duration, Instant};

use display_protocol::Features;
use frontend::{Command, DEFAULT_LIMIT, Notification, SocketForm};
use rustix::process::Signal;

use super::{Console, FakeGpu, assert_shows, picture};
use crate::common::*;

#[test]
fn activated_console_ends_some_seconds_after_its_last_viewer() {
    let mut console = Console::with(|command| command.socket(SocketForm::Activation));
    let viewer = console.viewer();
    // It stays while somebody looks.
    let limit = Duration::from_secs(12);
    assert!(console.program.wait_exit(limit).is_err());
    drop(viewer);
    let left = Instant::now();
    assert_clean_exit(&mut console.program);
    let stayed = left.elapsed();
    assert!(stayed > Duration::from_secs(8), "{stayed:?}");
}

#[test]
fn console_with_a_socket_of_its_own_stays() {
    let mut console = Console::start(&[]);
    drop(console.viewer());
    assert!(console.program.wait_exit(Duration::from_secs(12)).is_err());
    console.program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut console.program);
    assert!(!console.program.socket_path().exists());
}

#[test]
fn service_manager_is_told_who_looks() {
    let mut console = Console::with(|command| command.socket(SocketForm::Activation).notify());
    let status = |text: String| move |n: &Notification| n.name == "STATUS" && n.value == text;
    let notify = console.program.notify().unwrap();
    notify.wait_ready(DEFAULT_LIMIT).unwrap();
    let nobody = status("nobody looks".to_owned());
    notify.wait_for("STATUS=", DEFAULT_LIMIT, nobody).unwrap();
    let viewer = console.viewer();
    let user = if rustix::process::getuid().is_root() {
        "root".to_owned()
    } else {
        return;
    };
    let me = format!("{user} (pid {})", std::process::id());
    let notify = console.program.notify().unwrap();
    let one = status(format!("1 viewer: {me}"));
    notify.wait_for("STATUS=", DEFAULT_LIMIT, one).unwrap();
    let _other = console.viewer();
    let notify = console.program.notify().unwrap();
    let two = status(format!("2 viewers: {me}, {me}"));
    notify.wait_for("STATUS=", DEFAULT_LIMIT, two).unwrap();
    drop(viewer);
    let left = format!("viewer disconnected: {me}\n");
    console.program.wait_stderr(&left).unwrap();
}

#[test]
fn console_that_was_killed_shows_all_when_it_is_back() {
    let pixels = picture(640, 480, 1);
    let (console, mut gpu, viewer) = Console::showing((640, 480), &pixels, &[]);
    let display = console.display();
    console.program.signal(Signal::KILL).unwrap();
    gpu.wait_closed();
    drop(viewer);
    let option = format!("--display={}", display.display());
    let command = Command::new(vnc_program()).arg(option);
    let program = command.socket(SocketForm::Path).spawn().unwrap();
    let mut again = Console {
        program,
        folder: tempfile::tempdir().unwrap(),
    };
    let joining = again.join();
    gpu.accept(Features::default());
    gpu.scanout(0, 640, 480);
    gpu.update(0, 0, 640, 480, &pixels);
    assert_shows(&mut joining.join().unwrap(), (640, 480), &pixels);
}

#[test]
fn start_that_fails_turns_viewers_away() {
    let folder = tempfile::tempdir().unwrap();
    let display = format!("--display={}", folder.path().join("display.sock").display());
    let command = Command::new(vnc_program()).args([&display, "--keyboard-layout=xx yy"]);
    let mut program = command
        .socket(SocketForm::Activation)
        .waiting(2)
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["xx yy", "keyboard layout"]);
    for mut waiting in program.take_waiting() {
        use std::io::Read as _;
        waiting.set_read_timeout(Some(QUICK)).unwrap();
        assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
    }
}

/// Libraries complain to stderr or to the log by themselves.
#[test]
fn missing_library_or_data_is_one_message() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libxkbcommon.so.0", "libxkbcommon.so"] {
        std::fs::write(folder.path().join(name), "not a library").unwrap();
    }
    let arguments = ["--display=/nonexistent", "--keyboard-layout=de"];
    for (variable, value, words) in [
        ("LD_LIBRARY_PATH", folder.path(), "package libxkbcommon0"),
        (
            "XKB_CONFIG_ROOT",
            Path::new("/nonexistent"),
            "package xkb-data",
        ),
    ] {
        let mut program = Command::new(vnc_program())
            .args(arguments)
            .env(variable, value)
            .socket(SocketForm::Path)
            .spawn()
            .unwrap();
        assert_early_failure(&mut program, &[words]);
        let stderr = program.stderr();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn usage_errors_have_status_2() {
    for arguments in [
        &["--display"][..],
        &[],
        &["--display=x", "--fd=3", "--socket-path=y"],
    ] {
        let mut program = Command::new(vnc_program()).args(arguments).spawn().unwrap();
        let status = assert_early_failure(&mut program, &["--display"]);
        assert_eq!(status.code(), Some(2));
    }
    let mut program = Command::new(vnc_program())
        .arg("--display=x")
        .spawn()
        .unwrap();
    let status = assert_early_failure(&mut program, &["no socket to serve on"]);
    assert_eq!(status.code(), Some(1));
}

#[test]
fn viewer_that_does_not_shake_hands_is_disconnected() {
    use std::io::Read as _;
    let mut console = Console::start(&[]);
    let mut stream = console.program.connect().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let connected = Instant::now();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"RFB 003.008\n");
    let waited = connected.elapsed();
    assert!(waited > Duration::from_secs(25), "{waited:?}");
}

/// A GPU that listens and never answers does not keep viewers waiting.
#[test]
fn silent_gpu_is_shown_as_waiting() {
    let (mut console, gpu) = Console::with_gpu();
    let viewer = console.viewer();
    assert!(viewer.name().contains("waiting"), "{}", viewer.name());
    let _: FakeGpu = gpu;
}

/// By `LimitNOFILE=` of a drop-in, for instance.
#[test]
fn console_without_descriptors_says_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = 0;
    for limit in 4..9 {
        let limit = format!("--nofile={limit}");
        let program = vnc_program();
        let command = Command::new("prlimit").args([&limit, program.to_str().unwrap()]);
        let socket = format!("--socket-path={}", folder.path().join(&limit).display());
        let command = command.args(["--display=/nonexistent/display", &socket]);
        let mut program = command.socket(SocketForm::None).spawn().unwrap();
        while !program.stderr().contains("is ready") {
            if let Some(status) = program.try_exit().unwrap() {
                assert!(!status.success(), "{limit}: {status}");
                program.wait_stderr("error: cannot ").unwrap();
                program.wait_stderr("Too many open files").unwrap();
                failed += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(failed > 0);
}
