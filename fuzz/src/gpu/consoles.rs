// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles at the display socket. Some keep to the protocol; those get what the scanouts show, whatever others do.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, listen, sendmsg, socket_with,
};
use vhost_user_backends::gpu::fuzzing::ExpectedDisplay;

use crate::bytes::Bytes;
use crate::front_end::FrontEnd;

/// Consoles that the device serves at the same time.
const MAX_CONSOLES: usize = 4;

/// The consoles of a device.
#[derive(Default)]
pub(super) struct Consoles {
    /// Where they connect.
    address: Option<SocketAddr>,
    connected: Vec<FrontEnd>,
}

impl Consoles {
    /// Consoles that can connect, and the socket where the device accepts them.
    pub(super) fn new() -> (Self, UnixListener) {
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let listener = listener.expect("the host has descriptors left");
        bind(&listener, &SocketAddrUnix::new_unnamed()).expect("the kernel has names left");
        listen(&listener, MAX_CONSOLES as i32).expect("a bound socket can listen");
        let listener = UnixListener::from(listener);
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let consoles = Self {
            address: Some(address),
            connected: Vec::new(),
        };
        (consoles, listener)
    }

    /// Connects one, once the device has seen which others are gone.
    pub(super) fn connect(&mut self) {
        let Some(address) = &self.address else {
            return;
        };
        self.connected.retain(|console| !console.is_closed());
        let socket = UnixStream::connect_addr(address).expect("the device listens");
        self.connected.push(FrontEnd::console(socket));
    }

    /// The device accepted the one that connected, or turned it away.
    pub(super) fn accepted(&mut self) {
        let Some(newest) = self.connected.pop() else {
            return;
        };
        if !newest.is_closed() {
            self.connected.push(newest);
            return;
        }
        let others = self.connected.len();
        assert!(others >= MAX_CONSOLES, "turned away, with {others} others");
    }

    /// One of them does something.
    pub(super) fn act(&mut self, bytes: &mut Bytes<'_>) {
        let Some(last) = self.connected.len().checked_sub(1) else {
            return;
        };
        let index = usize::from(bytes.u8()) % (last + 1);
        let Some(console) = self.connected.get_mut(index) else {
            return;
        };
        match bytes.u8() {
            0..=63 => {
                console.read_all();
                console.answer(bytes);
                console.send(usize::MAX);
            }
            64..=79 => console.read(bytes.u16().into()),
            80..=95 => console.answer(bytes),
            96..=127 => {
                let id = bytes.mostly(&[0, 1, 15, 16, 0]);
                let size = [1024, 640, 0, 1, 16384, 16385];
                console.resize([id, bytes.mostly(&size), bytes.mostly(&size)]);
            }
            128..=143 => {
                for id in 0..bytes.u8().into() {
                    console.resize([id % 17, 640, 480]);
                }
            }
            144..=175 => console.send(bytes.u8().into()),
            176..=199 => console.send(usize::MAX),
            200..=219 => {
                console.rave(bytes);
                console.send(bytes.u16().into());
            }
            220..=231 => console.stammer(bytes),
            232..=235 => {
                console.misbehave();
                pass_descriptors(console.socket(), bytes);
            }
            236..=239 => {
                console.misbehave();
                let how = bytes.of(&[Shutdown::Read, Shutdown::Write, Shutdown::Both]);
                // It may be closed by the device already.
                let _ = console.socket().shutdown(how);
            }
            _ => {
                console.send(bytes.u16().into());
                self.connected.swap_remove(index);
            }
        }
    }

    /// Each that keeps to the protocol reads all, and says what it has to say.
    pub(super) fn converse(&mut self) {
        for console in self.honest() {
            console.read_all();
            console.answer(&mut Bytes::new(&[]));
            console.send(usize::MAX);
        }
    }

    /// Messages that those came to hear who keep to the protocol.
    pub(super) fn heard(&mut self) -> usize {
        self.honest().map(|console| console.heard()).sum()
    }

    /// Whether one that keeps to the protocol waits for an answer.
    pub(super) fn wait(&mut self) -> bool {
        self.honest().any(|console| console.unanswered() != 0)
    }

    /// Those that keep to the protocol are connected, and have what the scanouts show.
    pub(super) fn check(&mut self, expected: &[ExpectedDisplay]) {
        for console in self.honest() {
            assert!(!console.is_closed(), "who keeps to the protocol is served");
            assert_eq!(console.unanswered(), 0, "requests without an answer");
            console.check(expected);
        }
    }

    fn honest(&mut self) -> impl Iterator<Item = &mut FrontEnd> {
        let consoles = self.connected.iter_mut();
        consoles.filter(|console| console.is_honest())
    }

    /// All go.
    pub(super) fn leave(&mut self) {
        self.connected.clear();
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }
}

/// Sends bytes with descriptors, which no console has a reason to.
fn pass_descriptors(socket: &UnixStream, bytes: &mut Bytes<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let file = File::open("/dev/null").expect("the host has descriptors left");
    let fds = [file.as_fd(), file.as_fd()];
    with.push(SendAncillaryMessage::ScmRights(&fds));
    let part = IoSlice::new(bytes.some(64));
    // Where there is no room they are lost.
    let _ = sendmsg(socket, &[part], &mut with, SendFlags::NOSIGNAL);
}
