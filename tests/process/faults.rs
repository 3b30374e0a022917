// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Faults around vhost-user-gpu: it ends or recovers cleanly, and the next VM starts.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request, ResponseKind,
};
use frontend::{Command, DEFAULT_LIMIT, Deadline, Memory, Program, Session, SocketForm};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

const XRGB: Format = Format::B8G8R8X8;

/// The gpu program at this path, ready.
fn at_path(path: &Path) -> Program {
    let option = format!("--socket-path={}", path.display());
    Command::new(gpu_program())
        .arg(option)
        .notify()
        .spawn()
        .unwrap()
}

fn connect(path: &Path) -> Session {
    let stream = Deadline::default().until("the socket", || Ok(UnixStream::connect(path).ok()));
    Session::new(stream.unwrap())
}

/// A guest that draws, on a program that was started just now.
fn a_vm_starts_and_draws(path: &Path) {
    let mut program = at_path(path);
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let options = GpuOptions::default();
    let gpu = Gpu::start(connect(path), &guest_memory(), Some(socket), options).unwrap();
    let mut vm = GpuVm {
        gpu,
        display,
        program,
    };
    draws(&mut vm);
    vm.finish();
    assert!(!path.exists(), "the socket stays behind");
}

fn draws(vm: &mut GpuVm) {
    vm.painted(77, XRGB, (16, 16));
    let whole = Rect::sized(16, 16);
    ok(vm.gpu.set_scanout(0, 77, whole));
    ok(vm.gpu.flush(77, whole));
    shows(vm, (15, 15));
    ok(vm.gpu.unref(77));
}

/// The picture is seen on the display, to this pixel.
fn shows(vm: &GpuVm, (x, y): (u32, u32)) {
    let drawn =
        |d: &frontend::gpu::Display| (d.surface(0).ok()?.rgb(x, y)? == pattern(x, y)).then_some(());
    vm.display.wait("the picture", drawn).unwrap();
}

/// The display reads no more, once it has said what it can do: before that it is sent nothing.
fn gets_stuck(vm: &GpuVm) {
    let answered = Request::SetProtocolFeatures;
    vm.display.wait_count(answered, 1).unwrap();
    vm.display.pause();
}

#[test]
fn program_killed_at_any_moment_leaves_a_socket_the_next_one_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu.sock");
    let killed = |mut program: Program| {
        program.signal(Signal::KILL).unwrap();
        program.wait_exit(DEFAULT_LIMIT).unwrap();
        a_vm_starts_and_draws(&path);
    };
    // At its start, from the first instruction on to the last before it is ready.
    for microseconds in [0, 500, 1000, 2000, 4000, 8000] {
        let program = at_path(&path);
        std::thread::sleep(Duration::from_micros(microseconds));
        killed(program);
    }
    // Waiting.
    let mut program = at_path(&path);
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    killed(program);
    // Connected.
    let program = at_path(&path);
    let mut session = connect(&path);
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    killed(program);
    // In the middle of a picture that the display does not take.
    let program = at_path(&path);
    let options = DisplayOptions {
        buffer: Some(4096),
        ..DisplayOptions::default()
    };
    let (display, socket) = DisplayThread::start(options).unwrap();
    let options = GpuOptions::default();
    let gpu = Gpu::start(connect(&path), &guest_memory(), Some(socket), options).unwrap();
    let mut vm = GpuVm {
        gpu,
        display,
        program,
    };
    gets_stuck(&vm);
    vm.painted(1, XRGB, (1024, 1024));
    ok(vm.gpu.set_scanout(0, 1, Rect::sized(1024, 1024)));
    ok(vm.gpu.flush(1, Rect::sized(1024, 1024)));
    killed(vm.program);
}

/// A VMM that is killed closes its sockets wherever it was.
#[test]
fn front_end_killed_at_any_moment_ends_the_program_cleanly() {
    let start = || {
        let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
        let session = program.session().unwrap();
        (program, session)
    };
    // Before it said a word, in the middle of one, and after it.
    let message = [1_u32, 1, 0, 2, 1, 8, 0, 0].map(u32::to_ne_bytes).concat();
    for said in 0..message.len() {
        let (mut program, session) = start();
        session.channel.send_bytes(&message[..said], &[]).unwrap();
        drop(session);
        assert_clean_exit(&mut program);
    }
    // With requests under way, and a display that is closed with it or outlives it.
    for outlives in [false, true] {
        let mut vm = GpuVm::start();
        vm.painted(1, XRGB, (1024, 1024));
        ok(vm.gpu.set_scanout(0, 1, Rect::sized(1024, 1024)));
        let flush = virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        for _ in 0..30 {
            vm.gpu.push(flush, &[0, 0, 1024, 1024, 1, 0]).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        let GpuVm {
            gpu,
            display,
            mut program,
        } = vm;
        if outlives {
            display.pause();
            drop(gpu);
        } else {
            drop(display);
            drop(gpu);
        }
        assert_clean_exit(&mut program);
    }
}

#[test]
fn stuck_display_that_closes_costs_the_guest_nothing() {
    let program = gpu_command(SocketForm::Connected(8)).spawn().unwrap();
    let options = DisplayOptions {
        buffer: Some(4096),
        ..DisplayOptions::default()
    };
    let display = DisplayThread::start(options).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    gets_stuck(&vm);
    vm.painted(1, XRGB, (1024, 1024));
    let whole = Rect::sized(1024, 1024);
    ok(vm.gpu.set_scanout(0, 1, whole));
    let spent = vm.program.cpu_time().unwrap();
    for _ in 0..10 {
        ok(vm.gpu.flush(1, whole));
    }
    std::thread::sleep(Duration::from_secs(1));
    // In the middle of the message that it did not take.
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    drop(std::mem::replace(&mut vm.display, display));
    ok(vm.gpu.flush(1, whole));
    std::thread::sleep(Duration::from_secs(1));
    let spent = vm.program.cpu_time().unwrap() - spent;
    assert!(spent < Duration::from_millis(900), "{spent:?} for nothing");
    vm.gpu.session.set_gpu_socket(socket).unwrap();
    shows(&vm, (1023, 1023));
    draws(&mut vm);
    vm.finish();
}

/// The program, with its log where nothing can be written.
fn with_a_full_log(folder: &Path) -> Command {
    let script = folder.join("full");
    let text = format!(
        "#!/bin/sh\nexec {} \"$@\" 2>/dev/full\n",
        gpu_program().display()
    );
    std::fs::write(&script, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).unwrap();
    Command::new(script)
}

#[test]
fn unwritable_log_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let command = with_a_full_log(folder.path());
    let program = command.socket(SocketForm::Connected(7)).spawn().unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::default());
    for n in 0..100 {
        answered(vm.gpu.unref(n + 9), ResponseKind::ErrInvalidResourceId);
    }
    draws(&mut vm);
    vm.finish();
    // Nor does it keep a failure from being one.
    let command = with_a_full_log(folder.path());
    let mut program = command.arg("--socket-path=/nonexistent/s").spawn().unwrap();
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn unwritable_capabilities_are_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(gpu_program())
        .arg("--print-capabilities")
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot print the capabilities"), "{said}");
}

fn limit(program: &Program, resource: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let pid = i32::try_from(program.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, resource, limit).unwrap();
}

#[test]
fn descriptor_shortage_at_a_second_front_end_does_not_spin() {
    let mut program = gpu_command(SocketForm::Path).spawn().unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    session.config(0, 16).unwrap();
    // poll(2) itself takes no more than that.
    limit(&program, Resource::Nofile, 8);
    let spent = program.cpu_time().unwrap();
    let others: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(program.socket_path()).unwrap())
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let spent = program.cpu_time().unwrap() - spent;
    assert!(spent < Duration::from_millis(500), "{spent:?} for nothing");
    session.config(0, 16).unwrap();
    drop((session, others));
    assert_clean_exit(&mut program);
}

#[test]
fn descriptor_shortage_at_the_first_front_end_ends_the_program_with_a_message() {
    let mut program = gpu_command(SocketForm::Path).notify().spawn().unwrap();
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    limit(&program, Resource::Nofile, 3);
    let _stream = UnixStream::connect(program.socket_path()).unwrap();
    assert_early_failure(&mut program, &["cannot accept a front-end", "open files"]);
}

#[test]
fn descriptor_shortage_at_a_message_ends_the_program_with_a_message() {
    let regions: Vec<_> = (0..8_u64).map(|n| (n << 30, 4096)).collect();
    let memory = Memory::new(&regions).unwrap();
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    session.set_memory(&memory).unwrap();
    limit(&program, Resource::Nofile, 12);
    assert!(session.set_memory(&memory).is_err());
    assert_early_failure(&mut program, &["RLIMIT_NOFILE"]);
}

#[test]
fn display_sockets_leak_no_descriptors() {
    let mut vm = GpuVm::start();
    let before = vm.program.open_descriptors().unwrap();
    for _ in 0..100 {
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        vm.gpu.session.set_gpu_socket(socket).unwrap();
        vm.display = display;
        vm.gpu.get_display_info().unwrap();
    }
    // Not by RLIMIT_NOFILE, which bounds what all programs of a user have under way, too. A message brings one, the proxy keeps
    // another for the device, and the crate has one.
    let now = vm.program.open_descriptors().unwrap();
    assert!(now <= before + 4, "{now} after {before}");
    draws(&mut vm);
    vm.finish();
}

#[test]
fn memory_shortage_for_a_resource_is_an_error_response() {
    let mut vm = GpuVm::start();
    let maps = std::fs::read_to_string(format!("/proc/{}/statm", vm.program.pid())).unwrap();
    let pages: u64 = maps.split(' ').next().unwrap().parse().unwrap();
    let taken = pages * rustix::param::page_size() as u64;
    limit(&vm.program, Resource::As, taken + (40 << 20));
    // 16 MiB each: two of them fit.
    let mut made = 0;
    while vm.gpu.create_2d(1 + made, XRGB, 2048, 2048).unwrap().kind == ResponseKind::OkNodata {
        made += 1;
    }
    assert_eq!(made, 2, "{}", vm.program.stderr());
    let more = vm.gpu.create_2d(100, XRGB, 2048, 2048);
    answered(more, ResponseKind::ErrOutOfMemory);
    vm.program.wait_stderr("the host has no memory").unwrap();
    for id in 1..=made {
        ok(vm.gpu.unref(id));
    }
    ok(vm.gpu.create_2d(100, XRGB, 2048, 2048));
    draws(&mut vm);
    vm.finish();
}

#[test]
fn gpu_socket_message_without_a_socket_ends_the_program_with_a_message() {
    let mut vm = GpuVm::start();
    let nothing = [33_u32, 1, 0].map(u32::to_ne_bytes).concat();
    let mut socket = vm.gpu.session.channel.socket();
    socket.write_all(&nothing).unwrap();
    let status = vm.program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
    let log = vm.program.stderr();
    assert!(log.contains("without a socket"), "{log}");
}

#[test]
fn memory_beyond_its_file_ends_the_program_with_a_message() {
    let command = gpu_command(SocketForm::Connected(7));
    let mut program = command.spawn().unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let mut regions = memory.regions();
    regions[0].size += 4096;
    assert!(session.set_regions(&regions).is_err());
    // Not by the signal that a look at the missing page would be (SIGBUS).
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
    let said = program.stderr();
    assert!(said.contains("has only 1048576 bytes"), "{said}");
}
