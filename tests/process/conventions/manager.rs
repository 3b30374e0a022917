// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages to the service manager.

use super::*;

#[test]
fn readiness_is_sent_once_the_socket_listens() {
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
fn status_says_in_words_what_is_served() {
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
fn screen_changes_do_not_flood_the_service_manager() {
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
    let told = told
        .iter()
        .filter(|n| n.value.starts_with("a front-end is connected"));
    assert!(told.count() <= 20, "{:?}", notify.seen());
    vm.finish();
}

#[test]
fn unresponsive_service_manager_stops_nothing() {
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
fn watchdog_is_fed_as_often_as_the_unit_wants() {
    let mut program = gpu_command(SocketForm::Path)
        .notify()
        .env("WATCHDOG_USEC", "10000000")
        .spawn()
        .unwrap();
    let notify = program.notify().unwrap();
    let ready = notify.wait_ready(DEFAULT_LIMIT).unwrap();
    Deadline::after(Duration::from_secs(60))
        .until("3 times WATCHDOG=1", || {
            Ok((notify.count("WATCHDOG", "1")? >= 3).then_some(()))
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
            pause < Duration::from_secs(10),
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
fn stdout_stays_empty() {
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
