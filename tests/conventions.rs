//! QEMU's "Backend program conventions" (docs/interop/vhost-user.rst), tried on the programs
//! themselves.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, GpuOptions, Rect, Request, ResponseKind,
};
use frontend::{Command, DEFAULT_LIMIT, Deadline, Program, Session, SocketForm};
use rustix::process::Signal;

const XRGB: Format = Format::B8G8R8X8;

/// All forms of a socket that is fit to be served.
const FORMS: [SocketForm; 4] = [
    SocketForm::Path,
    SocketForm::Connected(7),
    SocketForm::Listening(3),
    SocketForm::Activation,
];

/// Both programs with arguments that are all right as far as the socket is concerned.
fn both() -> [Command; 2] {
    [
        Command::new(gpu_program()),
        Command::new(input_program()).arg("--evdev-path=/dev/input/event0"),
    ]
}

#[test]
fn exactly_one_socket_is_asked_for() {
    for command in both() {
        let mut program = command.spawn().unwrap();
        assert_early_failure(&mut program, &["--socket-path", "--fd"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let (_ours, theirs) = UnixStream::pair().unwrap();
    for command in both() {
        let option = format!("--socket-path={}", path.display());
        let socket = theirs.try_clone().unwrap();
        let command = command.arg(option).arg("--fd=3").descriptor(socket);
        assert_early_failure(&mut command.spawn().unwrap(), &["--socket-path", "--fd"]);
        assert!(!path.exists());
    }
}

#[test]
fn a_descriptor_that_is_no_stream_socket_is_refused() {
    for command in both() {
        assert_early_failure(&mut command.arg("--fd=9").spawn().unwrap(), &["9"]);
    }
    for word in ["--fd=", "--fd=x", "--fd=-1", "--fd=99999999999"] {
        for command in both() {
            assert_early_failure(&mut command.arg(word).spawn().unwrap(), &["--fd"]);
        }
    }
    for command in both() {
        let file = File::open("/proc/self/cmdline").unwrap();
        let mut program = command.arg("--fd=3").descriptor(file).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
    for command in both() {
        let (datagrams, _other) = UnixDatagram::pair().unwrap();
        let mut program = command.arg("--fd=3").descriptor(datagrams).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
    for command in both() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut program = command.arg("--fd=3").descriptor(tcp).spawn().unwrap();
        assert_early_failure(&mut program, &["3", "socket"]);
    }
}

#[test]
fn a_path_that_cannot_be_is_refused() {
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
fn a_stale_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let mut program = at_path(&path);
    serve_once(Session::new(connect(&mut program, &path)));
    assert_clean_exit(&mut program);
    assert!(!path.exists(), "the socket stays behind");
}

#[test]
fn what_is_no_socket_is_never_deleted() {
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
fn a_live_socket_is_refused_and_its_process_left_alone() {
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
fn a_live_listener_is_not_disturbed() {
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
fn another_file_at_the_path_outlives_the_program() {
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

#[test]
fn capabilities_win_over_everything_else() {
    let cases: [&[&str]; 7] = [
        &["--print-capabilities"],
        &["--no-such-option", "--print-capabilities"],
        &["--print-capabilities", "--no-such-option=1", "stray", "-x"],
        &[
            "stray",
            "--fd=999",
            "--socket-path=/missing/x",
            "--print-capabilities",
        ],
        &["--fd", "--print-capabilities"],
        &[
            "--evdev-path=/missing",
            "--render-node=/missing",
            "--print-capabilities",
        ],
        &["--help", "--version", "--print-capabilities"],
    ];
    for case in cases {
        for (program, kind) in [(gpu_program(), "gpu"), (input_program(), "input")] {
            let mut program = Command::new(program).args(case).spawn().unwrap();
            let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
            assert!(status.success(), "{case:?}: {}", program.stderr());
            let json: serde_json::Value = serde_json::from_str(&program.stdout()).unwrap();
            assert_eq!(json["type"], kind);
            let features = json["features"].as_array().unwrap();
            let known = match kind {
                "gpu" => ["render-node", "virgl"],
                _ => ["evdev-path", "no-grab"],
            };
            for feature in features {
                assert!(
                    known.contains(&feature.as_str().unwrap()),
                    "{feature} is no feature"
                );
            }
            if kind == "input" {
                assert_eq!(features.len(), 2);
            }
        }
    }
}

#[test]
fn the_gpu_has_a_render_node_only_where_the_host_has_one() {
    let mut program = Command::new(gpu_program())
        .arg("--print-capabilities")
        .spawn()
        .unwrap();
    program.wait_exit(DEFAULT_LIMIT).unwrap();
    let json: serde_json::Value = serde_json::from_str(&program.stdout()).unwrap();
    let told = json["features"]
        .as_array()
        .unwrap()
        .contains(&"render-node".into());
    let names = fs::read_dir("/dev/dri")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name());
    let there = names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("renderD"));
    assert_eq!(told, there);
}

#[test]
fn help_and_version_are_told() {
    for (program, options) in [
        (
            gpu_program(),
            [
                "--socket-path",
                "--fd",
                "--print-capabilities",
                "--render-node",
            ],
        ),
        (
            input_program(),
            [
                "--socket-path",
                "--fd",
                "--print-capabilities",
                "--evdev-path",
            ],
        ),
    ] {
        let mut help = Command::new(&program).arg("--help").spawn().unwrap();
        assert!(help.wait_exit(DEFAULT_LIMIT).unwrap().success());
        for option in options {
            assert!(
                help.stdout().contains(option),
                "{option} is not in the help"
            );
        }
        let mut version = Command::new(&program).arg("--version").spawn().unwrap();
        assert!(version.wait_exit(DEFAULT_LIMIT).unwrap().success());
        assert!(
            version.stdout().contains(env!("CARGO_PKG_VERSION")),
            "{}",
            version.stdout()
        );
    }
}

#[test]
fn what_cannot_be_had_fails_early() {
    let gpu = || gpu_command(SocketForm::Path);
    let mut program = gpu()
        .arg("--render-node=/missing/renderD128")
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["/missing/renderD128"]);
    let mut program = gpu().arg("--render-node=/dev/null").spawn().unwrap();
    assert_early_failure(&mut program, &["/dev/null"]);
    let mut program = gpu().arg("--no-such-option").spawn().unwrap();
    assert_early_failure(&mut program, &["--no-such-option"]);
    let mut program = gpu().arg("stray").spawn().unwrap();
    assert_early_failure(&mut program, &["stray"]);

    let input = || Command::new(input_program()).socket(SocketForm::Path);
    assert_early_failure(&mut input().spawn().unwrap(), &["--evdev-path"]);
    for path in ["/missing/event0", "/dev/null", "/"] {
        let mut program = input().arg(format!("--evdev-path={path}")).spawn().unwrap();
        assert_early_failure(&mut program, &[path]);
        assert!(!program.socket_path().exists(), "the socket stays behind");
    }
}

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

#[test]
fn signals_end_it_while_it_waits() {
    for form in FORMS {
        for signal in [Signal::TERM, Signal::INT] {
            let mut program = gpu_command(form).notify().spawn().unwrap();
            program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
            program.signal(signal).unwrap();
            assert_clean_exit(&mut program);
            if form == SocketForm::Path {
                assert!(!program.socket_path().exists(), "the socket stays behind");
            }
        }
    }
}

#[test]
fn signals_end_it_while_connected() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Path).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        program.signal(signal).unwrap();
        assert_clean_exit(&mut program);
        session.channel.wait_closed().unwrap();
        assert!(!program.socket_path().exists(), "the socket stays behind");
    }
}

/// A front-end that stops in the middle of a message.
#[test]
fn signals_end_it_in_the_middle_of_a_message() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Connected(3)).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        let half = [2, 0, 0, 0, 1, 0];
        session.channel.send_bytes(&half, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        program.signal(signal).unwrap();
        assert_clean_exit(&mut program);
    }
}

/// A front-end that sends faster than it is served.
#[test]
fn signals_end_it_while_the_front_end_floods_it() {
    // SET_OWNER and RESET_OWNER: nothing to wait for, nothing to do.
    let messages = [
        [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    let flood = messages.concat().repeat(100);
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Connected(3)).spawn().unwrap();
        let session = program.session().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| while session.channel.send_bytes(&flood, &[]).is_ok() {});
            std::thread::sleep(Duration::from_millis(200));
            program.signal(signal).unwrap();
            assert_clean_exit(&mut program);
        });
    }
}

#[test]
fn signals_end_it_while_rings_run() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut vm = GpuVm::start();
        vm.painted(1, XRGB, (64, 64));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn signals_end_it_while_the_display_does_not_read() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut vm = stuck();
        let size = Rect::sized(512, 512);
        ok(vm.gpu.create_2d(1, XRGB, 512, 512));
        ok(vm.gpu.set_scanout(0, 1, size));
        let flush = virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        for _ in 0..8 {
            vm.gpu.push(flush, &[0, 0, 512, 512, 1, 0]).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn signals_end_it_while_the_display_does_not_answer() {
    for signal in [Signal::TERM, Signal::INT] {
        let program = gpu_command(SocketForm::Connected(8)).spawn().unwrap();
        let display = DisplayThread::start_stuck(DisplayOptions::default()).unwrap();
        let mut vm = GpuVm::of(program, display, GpuOptions::default());
        let info =
            virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
        let request = vm.gpu.request(info, &[]);
        vm.gpu.control.push(&request, 1024).unwrap();
        vm.gpu.control.queue.submit().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn it_ends_when_the_front_end_leaves() {
    // At once, negotiated, with rings that run, in the middle of a message.
    for form in FORMS {
        let mut program = gpu_command(form).spawn().unwrap();
        drop(program.connect().unwrap());
        assert_clean_exit(&mut program);

        let mut program = gpu_command(form).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        drop(session);
        assert_clean_exit(&mut program);

        let mut program = gpu_command(form).spawn().unwrap();
        let session = program.session().unwrap();
        session.channel.send_bytes(&[1, 0, 0, 0, 1], &[]).unwrap();
        drop(session);
        assert_clean_exit(&mut program);
    }
    GpuVm::start().finish();
}

#[test]
fn it_ends_when_the_front_end_leaves_a_stuck_display_behind() {
    let GpuVm {
        mut gpu,
        display,
        mut program,
    } = stuck();
    ok(gpu.create_2d(1, XRGB, 512, 512));
    ok(gpu.set_scanout(0, 1, Rect::sized(512, 512)));
    let flush = virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    gpu.push(flush, &[0, 0, 512, 512, 1, 0]).unwrap();
    gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(gpu);
    assert_clean_exit(&mut program);
    drop(display);
}

#[test]
fn readiness_is_told_once_it_listens() {
    for form in FORMS {
        let mut program = gpu_command(form).notify().spawn().unwrap();
        program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
        if form == SocketForm::Path {
            // No waiting: it must be there.
            assert!(UnixStream::connect(program.socket_path()).is_ok());
        } else {
            program.connect().unwrap();
        }
        assert_clean_exit(&mut program);
        let notify = program.notify().unwrap();
        assert_eq!(notify.count("READY", "1").unwrap(), 1);
        assert_eq!(notify.count("STOPPING", "1").unwrap(), 1);
        let seen = notify.seen().unwrap();
        let position = |name| seen.iter().position(|n| n.name == name).unwrap();
        assert!(position("READY") < position("STOPPING"));
        assert!(position("STATUS") < position("STOPPING"));
    }
    // A start that fails is never ready.
    let mut program = gpu_command(SocketForm::Path)
        .arg("--render-node=/missing")
        .notify()
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &[]);
    assert_eq!(program.notify().unwrap().count("READY", "1").unwrap(), 0);
}

#[test]
fn the_status_says_in_words_what_is_served() {
    let mut program = gpu_command(SocketForm::Path).notify().spawn().unwrap();
    let path = program.socket_path().display().to_string();
    let notify = program.notify().unwrap();
    let waiting = |n: &frontend::Notification| n.name == "STATUS" && n.value.contains(&path);
    notify
        .wait_for("STATUS= with the path", DEFAULT_LIMIT, waiting)
        .unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, XRGB, (640, 480));
    ok(vm.gpu.set_scanout(0, 1, Rect::sized(640, 480)));
    let shown = |n: &frontend::Notification| n.name == "STATUS" && n.value.contains("640x480");
    let notify = vm.program.notify().unwrap();
    notify
        .wait_for("STATUS= with the size", DEFAULT_LIMIT, shown)
        .unwrap();
    vm.finish();
}

#[test]
fn a_guest_that_changes_its_screens_does_not_flood_the_service_manager() {
    let program = gpu_command(SocketForm::Path).notify().spawn().unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, XRGB, (640, 480));
    // Nobody reads meanwhile: the device would wait for the service manager, if it told it itself.
    for width in (1..=600).chain([640]) {
        ok(vm.gpu.set_scanout(0, 1, Rect::sized(width, 480)));
    }
    let last = |n: &frontend::Notification| n.name == "STATUS" && n.value.contains("640x480");
    let notify = vm.program.notify().unwrap();
    notify
        .wait_for("STATUS= with the last size", DEFAULT_LIMIT, last)
        .unwrap();
    let told = notify.seen().unwrap();
    let told = told.iter().filter(|n| n.value.contains("vm connected"));
    assert!(told.count() <= 20, "{:?}", notify.seen());
    vm.finish();
}

#[test]
fn a_service_manager_that_does_not_read_stops_nothing() {
    for ended_by in [None, Some(Signal::TERM)] {
        let mut program = gpu_command(SocketForm::Path)
            .notify()
            .env("WATCHDOG_USEC", "20000")
            .spawn()
            .unwrap();
        let notify = program.notify().unwrap();
        notify.wait_ready(DEFAULT_LIMIT).unwrap();
        notify.fill().unwrap();
        let display = DisplayThread::start(DisplayOptions::default()).unwrap();
        let mut vm = GpuVm::of(program, display, GpuOptions::default());
        vm.painted(1, XRGB, (64, 48));
        ok(vm.gpu.set_scanout(0, 1, Rect::sized(64, 48)));
        let GpuVm {
            gpu, mut program, ..
        } = vm;
        match ended_by {
            Some(signal) => program.signal(signal).unwrap(),
            None => drop(gpu),
        }
        assert_clean_exit(&mut program);
    }
}

#[test]
fn the_watchdog_is_told_as_often_as_the_unit_wants() {
    let mut program = gpu_command(SocketForm::Path)
        .notify()
        .env("WATCHDOG_USEC", "200000")
        .spawn()
        .unwrap();
    let notify = program.notify().unwrap();
    let ready = notify.wait_ready(DEFAULT_LIMIT).unwrap();
    Deadline::default()
        .until("5 times WATCHDOG=1", || {
            Ok((notify.count("WATCHDOG", "1")? >= 5).then_some(()))
        })
        .unwrap();
    // Never later than the unit allows.
    let mut last = ready.at;
    for told in notify
        .seen()
        .unwrap()
        .iter()
        .filter(|n| n.name == "WATCHDOG")
    {
        let pause = told.at.duration_since(last.min(told.at));
        assert!(
            pause < Duration::from_millis(200),
            "{pause:?} without WATCHDOG=1"
        );
        last = told.at;
    }
    drop(program);

    let mut quiet = gpu_command(SocketForm::Path).notify().spawn().unwrap();
    quiet.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(quiet.notify().unwrap().count("WATCHDOG", "1").unwrap(), 0);
    drop(quiet);

    let mut others = gpu_command(SocketForm::Path)
        .notify()
        .env("WATCHDOG_USEC", "100000")
        .env("WATCHDOG_PID", "1")
        .spawn()
        .unwrap();
    others.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(others.notify().unwrap().count("WATCHDOG", "1").unwrap(), 0);
}

#[test]
fn nothing_it_does_writes_on_stdout() {
    let program = gpu_command(SocketForm::Connected(3))
        .arg("--log-level=trace")
        .spawn()
        .unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, XRGB, (64, 64));
    ok(vm.gpu.set_scanout(0, 1, Rect::sized(64, 64)));
    ok(vm.gpu.flush(1, Rect::sized(64, 64)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    answered(vm.gpu.unref(99), ResponseKind::ErrInvalidResourceId);
    // Asserts that stdout is empty.
    vm.finish();
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

/// The gpu program at this path.
fn at_path(path: &Path) -> Program {
    let option = format!("--socket-path={}", path.display());
    Command::new(gpu_program()).arg(option).spawn().unwrap()
}

fn wait_for_socket(program: &mut Program, path: &Path) {
    let there = || Ok(path.exists().then_some(()));
    let waited = Deadline::default().until("the socket", there);
    assert!(waited.is_ok(), "{}", program.stderr());
    assert!(
        program.try_exit().unwrap().is_none(),
        "{}",
        program.stderr()
    );
}

fn connect(program: &mut Program, path: &Path) -> UnixStream {
    let path = PathBuf::from(path);
    let connected = Deadline::default().until("the socket", || {
        assert!(
            program.try_exit().unwrap().is_none(),
            "{}",
            program.stderr()
        );
        Ok(UnixStream::connect(&path).ok())
    });
    connected.unwrap()
}

/// A whole conversation, to see that it is served.
fn serve_once(mut session: Session) {
    let offer = session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    assert!(
        offer
            .protocol_features
            .contains(frontend::VhostUserProtocolFeatures::CONFIG)
    );
    assert!(offer.queues >= 2, "{} queues", offer.queues);
    session.config(0, 16).unwrap();
}

/// A gpu with a display that reads no more once it has said what it can do: before that it is sent
/// nothing.
fn stuck() -> GpuVm {
    let vm = GpuVm::start();
    let answered = frontend::gpu::Request::SetProtocolFeatures;
    vm.display.wait_count(answered, 1).unwrap();
    vm.display.pause();
    vm
}
