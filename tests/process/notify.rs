// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages to a service manager that does not read for a moment: none is lost.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, GpuOptions, Rect};
use frontend::{DEFAULT_LIMIT, Notification, SocketForm};

#[test]
fn lost_watchdog_message_is_sent_again_within_the_limit() {
    const LIMIT: Duration = Duration::from_secs(6);
    let mut program = gpu_command(SocketForm::Connected(7))
        .notify()
        .env("WATCHDOG_USEC", LIMIT.as_micros().to_string())
        .spawn()
        .unwrap();
    let notify = program.notify().unwrap();
    let ready = notify.wait_ready(DEFAULT_LIMIT).unwrap();
    notify.fill().unwrap();
    // It is due at half the limit, and then at the limit, which is too late.
    thread::sleep(LIMIT / 2 + Duration::from_millis(300));
    notify.seen().unwrap();
    let told = |n: &Notification| n.name == "WATCHDOG";
    let told = notify.wait_for("WATCHDOG=1", LIMIT, told).unwrap();
    let after = told.at.duration_since(ready.at);
    assert!(after < LIMIT * 3 / 4, "told after {after:?}");
    // And then as often as before.
    let next = |n: &Notification| n.name == "WATCHDOG" && n.at > told.at;
    let next = notify.wait_for("WATCHDOG=1", LIMIT, next).unwrap();
    let pause = next.at.duration_since(told.at);
    assert!(pause < LIMIT, "{pause:?} without WATCHDOG=1");
}

#[test]
fn lost_status_is_sent_again() {
    let mut program = gpu_command(SocketForm::Connected(7))
        .notify()
        .spawn()
        .unwrap();
    let notify = program.notify().unwrap();
    notify.wait_ready(DEFAULT_LIMIT).unwrap();
    let status =
        |text: &'static str| move |n: &Notification| n.name == "STATUS" && n.value.contains(text);
    // Once that is told nothing else is to be for a second.
    let connected = status("a front-end is connected");
    notify
        .wait_for("STATUS=", DEFAULT_LIMIT, connected)
        .unwrap();
    notify.fill().unwrap();
    let filled = Instant::now();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    vm.painted(1, Format::B8G8R8X8, (640, 480));
    for width in [320, 640] {
        ok(vm.gpu.set_scanout(0, 1, Rect::sized(width, 480)));
        // Long enough for each to be tried, in vain.
        thread::sleep(Duration::from_millis(1500));
    }
    let notify = vm.program.notify().unwrap();
    let seen = notify.seen().unwrap();
    let early = seen.iter().filter(|n| n.at > filled && n.name == "STATUS");
    assert_eq!(early.count(), 0, "it was not full: {seen:?}");
    // Nothing happens meanwhile that would have it told.
    let newest = status("640x480");
    notify.wait_for("STATUS=", DEFAULT_LIMIT, newest).unwrap();
    assert_eq!(
        notify
            .seen()
            .unwrap()
            .iter()
            .filter(|n| n.value.contains("320x480"))
            .count(),
        0,
        "an older one was told too"
    );
    vm.finish();
}
