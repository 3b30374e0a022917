// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages that arrive on the front-end's socket.

use std::fs::File;
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures};
use vhost_user_backends::backend::DeviceBuilder;
use vhost_user_backends::backend::fuzzing::Connection;
use vhost_user_backends::gpu::Options as GpuOptions;
use vhost_user_backends::input::testing::FakeEvdev;
use vhost_user_backends::input::{HostAccess, InputBuilder};

use crate::bytes::Bytes;
use crate::guest::{Guest, REGIONS};
use crate::input::device_info;
use front_end::FrontEnd;
use passage::pass;

mod front_end;
mod passage;

const MAX_STEPS: usize = 100;
/// The feature bit of vhost-user's protocol features.
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// The protocol's version, and the wish for an acknowledgement.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;

const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const RESET_OWNER: u32 = 4;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;
const SET_CONFIG: u32 = 25;
const GPU_SET_SOCKET: u32 = 33;
const RESET_DEVICE: u32 = 34;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;

/// A front-end that sends anything, and a guest behind it.
pub fn vhost_user(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.u8() % 4 {
        0 => pass(&mut bytes),
        1 => {
            let info = device_info(&mut bytes);
            let source = FakeEvdev::new(info, HostAccess::UntilGrab);
            let source = source.expect("the host has descriptors left");
            serve(InputBuilder::new(source), Protocol::empty(), &mut bytes);
        }
        _ => {
            let options = GpuOptions {
                max_hostmem: Some(2 << 20),
                allow_resize: true,
                ..GpuOptions::default()
            };
            serve(options, Protocol::BACKEND_REQ, &mut bytes);
        }
    }
}

/// `protocol`: features that this device alone offers.
fn serve(builder: impl DeviceBuilder, protocol: Protocol, bytes: &mut Bytes<'_>) {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("the host has memory left");
    let len: usize = REGIONS.iter().map(|(_, len)| len).sum();
    let memory = File::from(memory);
    memory
        .set_len(len as u64)
        .expect("the host has memory left");
    let mut guest = Guest::in_file(&memory);
    let (socket, ours) = UnixStream::pair().expect("cannot make a socket");
    socket
        .set_nonblocking(true)
        .expect("fcntl(2) does not fail");
    let mut connection = Connection::new(ours, builder).expect("the host has threads left");
    let mut front_end = FrontEnd::new(socket, memory);
    if bytes.u8() & 1 == 0 {
        front_end.set_up(protocol, bytes);
    }
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        front_end.step(&mut guest, bytes);
        if !connection.pass() {
            break;
        }
        front_end.listen();
    }
    // Closed by the front-end, but for what it may still be told.
    let _ = front_end.socket.shutdown(std::net::Shutdown::Write);
    // That a broken connection, or a broken kick, ends the program is as it should be; that it does
    // not panic or hang is what is looked at.
    connection.finish();
}

fn head(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size].map(u32::to_ne_bytes).concat()
}
