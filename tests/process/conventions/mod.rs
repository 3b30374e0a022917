// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's "Backend program conventions" (docs/interop/vhost-user.rst), tested on the programs.

mod ends;
mod example;
mod front_ends;
mod manager;
mod sockets;
mod starts;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, GpuOptions, Rect, Request, ResponseKind,
};
use frontend::{Command, DEFAULT_LIMIT, Deadline, Program, Session, SocketForm};
use rustix::event::PollFlags;
use rustix::process::Signal;

const XRGB: Format = Format::B8G8R8X8;

/// All forms of a socket that is fit to be served.
const FORMS: [SocketForm; 4] = [
    SocketForm::Path,
    SocketForm::Connected(7),
    SocketForm::Listening(3),
    SocketForm::Activation,
];

/// The programs with arguments that are all right as far as the socket is concerned.
fn programs() -> [Command; 3] {
    [
        Command::new(gpu_program()),
        Command::new(input_program()).arg("--evdev-path=/dev/input/event0"),
        Command::new(rng_program()),
    ]
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

/// The connections of [`Command::waiting`] are closed, and none is left on a listening socket.
fn assert_waiting_closed(program: &mut Program, case: &str) {
    for stream in program.take_waiting() {
        let closed = Deadline::after(Duration::from_secs(30)).ready(stream.as_fd(), PollFlags::IN);
        assert!(closed.unwrap(), "{case}: the connection is open still");
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0, "{case}");
    }
    let further = program.further_listeners().iter();
    let further = further.map(|(_, listener)| listener);
    for listener in further.chain(program.listener()) {
        listener.set_nonblocking(true).unwrap();
        let left = listener.accept().map(drop).unwrap_err();
        assert_eq!(left.kind(), std::io::ErrorKind::WouldBlock, "{case}");
    }
}
