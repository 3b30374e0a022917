// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A log that nobody reads: the device keeps running, and the program ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions};
use frontend::{Command, DEFAULT_LIMIT, Program, Session};
use rustix::pipe::{PipeFlags, pipe_with};

/// A gpu program, and its socket. Its stderr is a pipe that is full, of which this is the other end.
fn unread() -> (Program, UnixStream, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let (reader, mut writer) = (File::from(reader), File::from(writer));
    while writer.write(&[b'-'; 4096]).is_ok() {}
    let (ours, theirs) = UnixStream::pair().unwrap();
    // The shell opens the pipe anew, by the name that it has with us: not as one that never blocks.
    let stderr = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    let program = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" --fd=3 2>\"$STDERR\""])
        .arg(gpu_program())
        .env("STDERR", stderr)
        .descriptor(theirs)
        .notify()
        .spawn();
    let mut program = program.unwrap();
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    (program, ours, reader)
}

/// All that is written from now on, while `program` runs.
fn read(mut reader: File, program: &mut Program) -> String {
    let deadline = Instant::now() + DEFAULT_LIMIT;
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match reader.read(&mut chunk) {
            Ok(n @ 1..) => all.extend_from_slice(&chunk[..n]),
            _ if program.try_exit().unwrap().is_some() => break,
            _ => thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < deadline, "it does not end");
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn unread_log_does_not_block_the_device() {
    let (mut program, socket, reader) = unread();
    let (display, theirs) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let session = Session::new(socket);
    let mut gpu = Gpu::start(
        session,
        &guest_memory(),
        Some(theirs),
        GpuOptions::default(),
    )
    .unwrap();
    ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
    drop(gpu);
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert!(status.success(), "{status}");
    drop((reader, display));
}

#[test]
fn last_message_waits_for_a_late_reader() {
    let (mut program, mut socket, reader) = unread();
    // A message that nobody sends ends the connection, and the program says so.
    socket.write_all(&[0xff; 64]).unwrap();
    thread::sleep(Duration::from_millis(100));
    let said = read(reader, &mut program);
    let words = said.trim_start_matches('-');
    assert!(words.contains("error: "), "{words}");
    assert!(!program.try_exit().unwrap().unwrap().success());
}
