// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};

use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::backend::continuity::Owner;
use crate::backend::testing::kept_state::KeptState;
use crate::backend::transport::proxy::private_connection;
use crate::backend::{ConfigChange, ConfigChangeState, EventSet, FIRST_TOKEN, FakeContext};

mod shared_memory;

const SET_VRING_KICK: u32 = FrontendReq::SET_VRING_KICK as u32;
const SET_VRING_ENABLE: u32 = FrontendReq::SET_VRING_ENABLE as u32;
const GET_VRING_BASE: u32 = FrontendReq::GET_VRING_BASE as u32;
const RESET_OWNER: u32 = FrontendReq::RESET_OWNER as u32;
const RESET_DEVICE: u32 = FrontendReq::RESET_DEVICE as u32;

const MESSAGE: [u32; 3] = [2, 1 | 1 << 3, 0];
const NONE: [u8; 0] = [];

/// A channel, the front-end's end of its socket, and the device's handle.
struct Joined {
    channel: BackendChannel,
    front_end: UnixStream,
    device: ConfigChange,
    context: FakeContext,
}

/// The front-end's answer is awaited by a successor, also if the process died in the middle of it.
#[test]
fn answer_that_is_awaited_reaches_a_successor() {
    let memory = || GuestMemoryAtomic::new(GuestMemoryMmap::new());
    for part in [0, 5, 13, 20] {
        let mut kept = KeptState::new().unwrap();
        let (mut front_end, backend) = UnixStream::pair().unwrap();
        front_end.set_nonblocking(true).unwrap();
        let answer = [words(&[2, 1 | 1 << 2, 8]), 0_u64.to_ne_bytes().to_vec()].concat();
        let note = |channel: &mut BackendChannel| {
            let features = VhostUserProtocolFeatures::all().bits();
            channel.note(SET_PROTOCOL_FEATURES, &features.to_ne_bytes(), &[]);
            let fds = [backend.try_clone().unwrap().into()];
            channel.note(SET_BACKEND_REQ_FD, &[], &fds);
            channel.note(SET_VRING_KICK, &0_u64.to_ne_bytes(), &[]);
            channel.note(SET_VRING_ENABLE, &words(&[0, 1]), &[]);
        };
        {
            let context = FakeContext::new(memory()).unwrap();
            let device = context.context().config_change(FIRST_TOKEN).unwrap();
            let continuity = kept.next_process().unwrap();
            let link = context.requests().clone();
            let mut channel = BackendChannel::kept(link, &continuity).unwrap();
            note(&mut channel);
            continuity.ledger(Owner::Proxy).commit();
            device.send();
            channel.serve(true, false);
            let mut sent = [0; 12];
            front_end.read_exact(&mut sent).unwrap();
            front_end.write_all(&answer[..part]).unwrap();
            channel.serve(true, false);
        }
        let context = FakeContext::new(memory()).unwrap();
        let device = context.context().config_change(FIRST_TOKEN).unwrap();
        let continuity = kept.next_process().unwrap();
        let link = context.requests().clone();
        let mut channel = BackendChannel::kept(link, &continuity).unwrap();
        channel.resume(note).unwrap();
        let is_answered = part == answer.len();
        assert_eq!(channel.awaited_fd().is_none(), is_answered, "{part}");
        front_end.write_all(&answer[part..]).unwrap();
        channel.serve(true, false);
        assert_eq!(device.state(), ConfigChangeState::Ready, "{part}");
        // The next one is told and answered as ever.
        device.send();
        channel.serve(true, false);
        let mut sent = [0; 12];
        front_end.read_exact(&mut sent).unwrap();
        assert!(channel.awaited_fd().is_some());
        front_end.write_all(&answer).unwrap();
        channel.serve(true, false);
        assert_eq!(device.state(), ConfigChangeState::Ready);
    }
}

/// A front-end that has begun to stop its virtqueues is told nothing, in whichever process.
#[test]
fn device_that_is_being_stopped_stays_so_for_a_successor() {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let context = FakeContext::new(memory).unwrap();
    let _device = context.context().config_change(FIRST_TOKEN).unwrap();
    let mut kept = KeptState::new().unwrap();
    let start = |channel: &mut BackendChannel, vrings: &[u32]| {
        for index in vrings {
            let kick = u64::from(*index).to_ne_bytes();
            channel.note(SET_VRING_KICK, &kick, &[]);
            channel.note(SET_VRING_ENABLE, &words(&[*index, 1]), &[]);
        }
    };
    let mut process = || {
        let continuity = kept.next_process().unwrap();
        let link = context.requests().clone();
        let channel = BackendChannel::kept(link, &continuity).unwrap();
        (channel, continuity)
    };
    let (mut channel, continuity) = process();
    start(&mut channel, &[0, 1]);
    channel.note(GET_VRING_BASE, &words(&[0, 0]), &[]);
    continuity.ledger(Owner::Proxy).commit();
    // Each successor goes on with what the last one left.
    for _ in 0..2 {
        let (mut channel, continuity) = process();
        channel.resume(|channel| start(channel, &[1])).unwrap();
        assert!(!channel.vrings.run());
        continuity.ledger(Owner::Proxy).commit();
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Joined {
    /// With a front-end that answers, and whose virtqueues run.
    fn running() -> Self {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let context = FakeContext::new(memory).unwrap();
        let device = context.context().config_change(FIRST_TOKEN).unwrap();
        let mut channel = BackendChannel::new(context.requests().clone());
        let (front_end, backend) = UnixStream::pair().unwrap();
        front_end.set_nonblocking(true).unwrap();
        let features = VhostUserProtocolFeatures::all().bits();
        channel.note(SET_PROTOCOL_FEATURES, &features.to_ne_bytes(), &[]);
        channel.note(SET_BACKEND_REQ_FD, &[], &[backend.into()]);
        let mut joined = Self {
            channel,
            front_end,
            device,
            context,
        };
        joined.start();
        joined
    }

    fn start(&mut self) {
        for index in 0..2 {
            let kick = u64::from(index).to_ne_bytes();
            self.channel.note(SET_VRING_KICK, &kick, &[]);
            let enable = words(&[index, 1]);
            self.channel.note(SET_VRING_ENABLE, &enable, &[]);
        }
    }

    fn connect(&mut self, socket: impl Into<OwnedFd>) {
        let fds = [socket.into()];
        self.channel.note(SET_BACKEND_REQ_FD, &[], &fds);
    }

    /// What the front-end was sent.
    fn sent(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        let error = self.front_end.read_to_end(&mut sent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        sent
    }

    fn answer(&mut self, header: [u32; 3], value: u64) {
        let answer = [words(&header), value.to_ne_bytes().to_vec()].concat();
        self.front_end.write_all(&answer).unwrap();
        self.channel.serve(true, false);
    }

    /// Whether the device is woken.
    fn is_woken(&self) -> bool {
        let event = (FIRST_TOKEN, EventSet::IN);
        self.context.ready(0).unwrap().contains(&event)
    }
}

const ANSWER: [u32; 3] = [2, 1 | 1 << 2, 8];

#[test]
fn change_is_sent_once_and_ends_with_its_answer() {
    let mut joined = Joined::running();
    assert_eq!(joined.device.state(), ConfigChangeState::Ready);
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), NONE);
    joined.device.send();
    joined.device.send();
    let under_way = joined.device.state();
    assert!(matches!(under_way, ConfigChangeState::UnderWay { .. }));
    assert!(joined.channel.awaited_fd().is_none());
    joined.channel.serve(true, false);
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), words(&MESSAGE));
    assert!(joined.channel.awaited_fd().is_some());
    // As long as it is not answered, no other one.
    joined.device.send();
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), NONE);
    assert_eq!(joined.device.state(), under_way);
    joined.device.woke();
    assert!(!joined.is_woken());
    joined.answer(ANSWER, 0);
    assert!(joined.is_woken());
    assert!(!joined.device.woke());
    assert_eq!(joined.device.state(), ConfigChangeState::Ready);
    assert!(joined.channel.awaited_fd().is_none());
    joined.device.send();
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), words(&MESSAGE));
}

#[test]
fn front_end_without_answers_is_not_awaited() {
    let mut joined = Joined::running();
    let features = VhostUserProtocolFeatures::BACKEND_REQ.bits();
    let features = features.to_ne_bytes();
    joined.channel.note(SET_PROTOCOL_FEATURES, &features, &[]);
    joined.device.send();
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), words(&[2, 1, 0]));
    assert!(joined.channel.awaited_fd().is_none());
    assert_eq!(joined.device.state(), ConfigChangeState::Ready);
}

#[test]
fn nothing_is_sent_while_a_message_of_the_front_end_is_read() {
    let mut joined = Joined::running();
    joined.device.send();
    joined.channel.serve(false, false);
    assert_eq!(joined.sent(), NONE);
    assert!(!joined.device.woke());
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), words(&MESSAGE));
}

#[test]
fn change_is_withdrawn_when_the_front_end_begins_to_stop_the_device() {
    let stops: [(u32, Vec<u8>); 5] = [
        (GET_VRING_BASE, words(&[0, 0])),
        (GET_VRING_BASE, words(&[1, 0])),
        (SET_VRING_ENABLE, words(&[0, 0])),
        (RESET_DEVICE, Vec::new()),
        (RESET_OWNER, Vec::new()),
    ];
    for (stop, payload) in stops {
        let mut joined = Joined::running();
        joined.device.send();
        joined.channel.note(stop, &payload, &[]);
        joined.channel.serve(true, false);
        assert_eq!(joined.sent(), NONE, "request {stop}");
        assert!(joined.is_woken());
        assert!(joined.device.woke());
        assert!(!joined.device.woke());
        // The device may wish for it again, and the front-end go on.
        joined.device.send();
        joined.start();
        joined.channel.serve(true, false);
        assert_eq!(joined.sent(), words(&MESSAGE), "request {stop}");
    }
}

#[test]
fn virtqueue_that_does_not_run_may_be_stopped() {
    let mut joined = Joined::running();
    for (request, index) in [
        (SET_VRING_ENABLE, 2),
        (GET_VRING_BASE, 2),
        (SET_VRING_ENABLE, 64),
        (GET_VRING_BASE, u32::MAX),
    ] {
        joined.channel.note(request, &words(&[index, 0]), &[]);
    }
    joined
        .channel
        .note(GET_VRING_BASE + 1, &words(&[0, 0]), &[]);
    joined.device.send();
    joined.channel.serve(true, false);
    assert_eq!(joined.sent(), words(&MESSAGE));
}

#[test]
fn bad_channels_are_not_used() {
    let mut joined = Joined::running();
    for fd in [
        OwnedFd::from(File::open("/dev/null").unwrap()),
        UnixDatagram::unbound().unwrap().into(),
    ] {
        joined.connect(fd);
        assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
        joined.device.send();
        joined.channel.serve(true, false);
    }
    joined.channel.note(SET_BACKEND_REQ_FD, &[], &[]);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
    // A listening socket takes nothing, and one whose other end is closed.
    let (listener, _) = private_connection().unwrap();
    joined.connect(listener);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
    joined.connect(UnixStream::pair().unwrap().0);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
}

#[test]
fn full_channel_is_noticed_before_and_while_sending() {
    let mut joined = Joined::running();
    let (front_end, backend) = UnixStream::pair().unwrap();
    joined.connect(backend.try_clone().unwrap());
    joined.device.send();
    backend.set_nonblocking(true).unwrap();
    while (&backend).write(&[0; 4096]).is_ok() {}
    joined.channel.serve(true, false);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
    joined.connect(backend);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
    drop(front_end);
}

#[test]
fn front_end_that_answers_wrongly_is_asked_no_more() {
    for (header, value) in [
        (ANSWER, 1),
        ([2, 1, 8], 0),
        ([1, 1 | 1 << 2, 8], 0),
        ([2, 1 | 1 << 2, u32::MAX], 0),
    ] {
        let mut joined = Joined::running();
        joined.device.send();
        joined.channel.serve(true, false);
        joined.answer(header, value);
        let state = joined.device.state();
        assert_eq!(state, ConfigChangeState::Unavailable, "{header:?} {value}");
        assert!(joined.is_woken());
    }
    let mut joined = Joined::running();
    joined.device.send();
    joined.channel.serve(true, false);
    drop(std::mem::replace(
        &mut joined.front_end,
        UnixStream::pair().unwrap().0,
    ));
    joined.channel.serve(true, false);
    assert_eq!(joined.device.state(), ConfigChangeState::Unavailable);
}

#[test]
fn answer_may_come_in_parts() {
    let mut joined = Joined::running();
    joined.device.send();
    joined.channel.serve(true, false);
    let answer = [words(&ANSWER), vec![0; 8]].concat();
    for byte in answer {
        let state = joined.device.state();
        assert!(matches!(state, ConfigChangeState::UnderWay { .. }));
        joined.front_end.write_all(&[byte]).unwrap();
        joined.channel.serve(true, false);
    }
    assert_eq!(joined.device.state(), ConfigChangeState::Ready);
}

#[test]
fn channel_is_left_alone_for_a_device_without_changes() {
    let mut channel = BackendChannel::new(RequestLinks::default());
    let fds = [OwnedFd::from(UnixStream::pair().unwrap().0)];
    channel.note(SET_BACKEND_REQ_FD, &[], &fds);
    assert!(channel.socket.is_none());
}
