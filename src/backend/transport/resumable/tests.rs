// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg, sockopt};
use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::backend::continuity::{Death, crash};
use crate::backend::testing::kept_state::KeptState;
use crate::backend::transport::forwarder::{MessageForwarder, Received};

const NEED_REPLY: u32 = 1 << 3;
const NOTHING: [PollFlags; 2] = [PollFlags::empty(); 2];
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// A message of a front-end, with what it is sent in: one piece, or cut at these bytes.
struct Sent {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    cuts: Vec<usize>,
    /// Bytes of its reply.
    reply: usize,
}

impl Sent {
    fn new(request: FrontendReq, payload: &[u8]) -> Self {
        let reply = match request {
            FrontendReq::GET_FEATURES => 8,
            FrontendReq::GET_VRING_BASE => payload.len(),
            _ => 0,
        };
        Self {
            bytes: message(request as u32, payload),
            fds: Vec::new(),
            cuts: Vec::new(),
            reply: if reply == 0 { 0 } else { HEADER + reply },
        }
    }

    fn with(mut self, fds: Vec<OwnedFd>) -> Self {
        self.fds = fds;
        self
    }

    fn cut(mut self, at: &[usize]) -> Self {
        self.cuts = at.to_vec();
        self
    }

    fn acknowledged(mut self) -> Self {
        self.bytes[4] |= NEED_REPLY as u8;
        self.reply = HEADER + 8;
        self
    }

    /// Sends it; `between` runs between the pieces.
    fn send(&self, to: &UnixStream, mut between: impl FnMut()) {
        let mut from = 0;
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        for end in ends {
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(|fd| fd.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if from == 0 && !fds.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            }
            let piece = [IoSlice::new(&self.bytes[from..end])];
            let sent = sendmsg(to, &piece, &mut control, SendFlags::empty());
            assert_eq!(sent, Ok(end - from));
            if end < self.bytes.len() {
                between();
            }
            from = end;
        }
    }
}

fn file() -> OwnedFd {
    let file = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 1 << 20).unwrap();
    file
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn state(index: u32, value: u32) -> Vec<u8> {
    [index, value].map(u32::to_ne_bytes).concat()
}

/// What the daemon was told, as far as it lasts: payloads and files by request and virtqueue, and regions of memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    set: BTreeMap<(u32, u32), (Vec<u8>, Option<u64>)>,
    regions: BTreeMap<u64, (Vec<u8>, u64)>,
}

/// A daemon that carries out every message.
struct Daemon {
    socket: UnixStream,
    receiving: MessageForwarder,
    told: Told,
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

impl Daemon {
    fn serve(&mut self) {
        loop {
            match self.receiving.receive(&self.socket).unwrap() {
                Received::Some if self.receiving.is_complete() => {
                    let message = std::mem::take(&mut self.receiving);
                    self.carry_out(message);
                }
                Received::Some => {}
                Received::Nothing | Received::Closed => return,
            }
        }
    }

    fn carry_out(&mut self, received: MessageForwarder) {
        let inodes: Vec<_> = received.fds().iter().map(inode).collect();
        let bytes = received.into_bytes();
        let payload = payload_of(&bytes).to_vec();
        let request = FrontendReq::try_from(request_of(&bytes).unwrap()).unwrap();
        let index = payload.first().copied().unwrap_or(0).into();
        let key = (request as u32, index);
        let set = &mut self.told.set;
        let mut reply = None;
        let mut region = |region: &[u8], file: u64| {
            let guest = u64::from_ne_bytes(*region.first_chunk().unwrap());
            self.told.regions.insert(guest, (region.to_vec(), file));
        };
        match request {
            FrontendReq::GET_FEATURES => reply = Some(words(&[FEATURES])),
            FrontendReq::GET_VRING_BASE => {
                set.remove(&(FrontendReq::SET_VRING_KICK as u32, index));
                set.remove(&(FrontendReq::SET_VRING_CALL as u32, index));
                let base = state(index, 7);
                let base_key = (FrontendReq::SET_VRING_BASE as u32, index);
                set.insert(base_key, (base.clone(), None));
                reply = Some(base);
            }
            FrontendReq::SET_MEM_TABLE => {
                self.told.regions.clear();
                for (bytes, file) in payload[8..].chunks_exact(32).zip(inodes) {
                    let guest = u64::from_ne_bytes(*bytes.first_chunk().unwrap());
                    self.told.regions.insert(guest, (bytes.to_vec(), file));
                }
            }
            FrontendReq::ADD_MEM_REG => region(&payload[8..], inodes[0]),
            FrontendReq::REM_MEM_REG => {
                let guest = u64::from_ne_bytes(*payload[8..].first_chunk().unwrap());
                self.told.regions.remove(&guest);
            }
            FrontendReq::SET_FEATURES | FrontendReq::SET_PROTOCOL_FEATURES => {
                set.insert((request as u32, 0), (payload, None));
            }
            FrontendReq::SET_OWNER | FrontendReq::GPU_SET_SOCKET => {
                set.insert((request as u32, 0), (payload, inodes.first().copied()));
            }
            FrontendReq::RESET_OWNER | FrontendReq::SET_CONFIG => {}
            _ => drop(set.insert(key, (payload, inodes.first().copied()))),
        }
        if reply.is_none() && bytes[4] & NEED_REPLY as u8 != 0 {
            reply = Some(words(&[0]));
        }
        if let Some(reply) = reply {
            self.socket
                .write_all(&message(request as u32, &reply))
                .unwrap();
        }
    }
}

/// A front-end and the processes that serve it, one after the other.
struct Machine {
    kept: KeptState,
    front_end: UnixStream,
    replies: Vec<u8>,
    /// When processes die, the next one first.
    deaths: Vec<Death>,
    process: Option<(ResumableProxy, Daemon)>,
    ours: Option<UnixStream>,
}

impl Machine {
    fn new(deaths: Vec<Death>) -> Self {
        let (front_end, ours) = UnixStream::pair().unwrap();
        // As of a listener with PassCredentials=.
        sockopt::set_socket_passcred(&ours, true).unwrap();
        let mut machine = Self {
            kept: KeptState::new().unwrap(),
            front_end,
            replies: Vec::new(),
            deaths,
            process: None,
            ours: Some(ours),
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let continuity = self.kept.next_process().unwrap();
        let front_end = match self.ours.take() {
            Some(front_end) => {
                assert!(keep_front_end(&continuity, &front_end));
                front_end
            }
            None => kept_front_end(&continuity).unwrap().unwrap(),
        };
        if !self.deaths.is_empty() {
            let ledger = continuity.ledger(Owner::Proxy);
            ledger.die(self.deaths.remove(0));
        }
        let (proxy_daemon, daemon) = UnixStream::pair().unwrap();
        daemon.set_nonblocking(true).unwrap();
        let proxy = ResumableProxy::new(
            [front_end, proxy_daemon],
            DisplaySocketMailbox::default(),
            RequestLinks::default(),
            Succession::new(continuity),
        );
        let daemon = Daemon {
            socket: daemon,
            receiving: MessageForwarder::default(),
            told: Told::default(),
        };
        self.process = Some((proxy.unwrap(), daemon));
    }

    /// Has the process do what it can; another one goes on if it dies.
    fn run(&mut self) {
        loop {
            let (proxy, daemon) = self.process.as_mut().unwrap();
            let passed = catch_unwind(AssertUnwindSafe(|| {
                for _ in 0..8 {
                    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
                    daemon.serve();
                }
            }));
            if passed.is_ok() {
                break;
            }
            self.process = None;
            self.start();
        }
        self.front_end.set_nonblocking(true).unwrap();
        let _ = self.front_end.read_to_end(&mut self.replies);
        self.front_end.set_nonblocking(false).unwrap();
    }

    fn tell(&mut self, messages: &[Sent]) {
        for sent in messages {
            let front_end = self.front_end.try_clone().unwrap();
            let before = self.replies.len();
            sent.send(&front_end, || self.run());
            self.run();
            // Each message is answered, or carried out, before the next one follows.
            assert_eq!(self.replies.len() - before, sent.reply);
        }
    }

    /// Tells each batch of messages by one call, with the descriptors of all, before anything is received.
    fn tell_at_once(&mut self, batches: &[Vec<Sent>]) {
        for batch in batches {
            let mut one = Sent::new(FrontendReq::SET_OWNER, &[]);
            one.bytes = batch.iter().flat_map(|sent| sent.bytes.clone()).collect();
            let fds = batch.iter().flat_map(|sent| &sent.fds);
            one.fds = fds.map(|fd| fd.try_clone().unwrap()).collect();
            one.send(&self.front_end, || ());
        }
        self.run();
    }

    fn told(&self) -> Told {
        self.process.as_ref().unwrap().1.told.clone()
    }
}

/// What a front-end says from the start to running virtqueues, to a change of its memory, and a stop.
fn session() -> Vec<Sent> {
    let region = |guest: u64| [guest, 1 << 20, 0x7000_0000 + guest, 0];
    let kick = |request, index| Sent::new(request, &words(&[index])).with(vec![event()]);
    let table = [words(&[2]), words(&region(1 << 20)), words(&region(0))].concat();
    let added = [words(&[0]), words(&region(1 << 30))].concat();
    let address = |index: u64| words(&[index, 0x7000_1000, 0x7000_3000, 0x7000_2000, 0]);
    let mut all = vec![
        Sent::new(FrontendReq::GET_FEATURES, &[]),
        Sent::new(FrontendReq::SET_OWNER, &[]).cut(&[5]),
        Sent::new(FrontendReq::SET_PROTOCOL_FEATURES, &words(&[0x828b])),
        Sent::new(FrontendReq::SET_FEATURES, &words(&[FEATURES])).acknowledged(),
        Sent::new(FrontendReq::SET_MEM_TABLE, &table)
            .with(vec![file(), file()])
            .cut(&[12, 40])
            .acknowledged(),
    ];
    for index in 0..2 {
        all.extend([
            Sent::new(FrontendReq::SET_VRING_NUM, &state(index, 64)),
            Sent::new(FrontendReq::SET_VRING_BASE, &state(index, 0)),
            Sent::new(FrontendReq::SET_VRING_ADDR, &address(index.into())),
            kick(FrontendReq::SET_VRING_CALL, index.into()),
            kick(FrontendReq::SET_VRING_KICK, index.into()),
            Sent::new(FrontendReq::SET_VRING_ENABLE, &state(index, 1)).acknowledged(),
        ]);
    }
    all.extend([
        Sent::new(FrontendReq::ADD_MEM_REG, &added).with(vec![file()]),
        Sent::new(FrontendReq::SET_CONFIG, &[0; 16]),
        kick(FrontendReq::SET_VRING_CALL, 1),
        Sent::new(FrontendReq::GET_VRING_BASE, &state(0, 0)).cut(&[3, 14]),
        Sent::new(FrontendReq::REM_MEM_REG, &added).acknowledged(),
    ]);
    all
}

#[test]
fn front_end_does_not_notice_a_death_at_any_commit() {
    let messages = session();
    let mut undisturbed = Machine::new(Vec::new());
    undisturbed.tell(&messages);
    let mut deaths = 0;
    for commits in 0.. {
        let mut died = false;
        for is_committed in [false, true] {
            let death = Death {
                commits,
                is_committed,
            };
            let mut machine = Machine::new(vec![death]);
            machine.tell(&messages);
            died |= machine.kept.processes() > 1;
            deaths += machine.kept.processes() - 1;
            // The last process may not be the first: what it was told lasts.
            assert_eq!(machine.replies, undisturbed.replies, "{death:?}");
            machine.kill();
            assert_eq!(machine.told(), undisturbed.told(), "{death:?}");
        }
        if !died {
            break;
        }
    }
    // Each message is recorded, and each is carried out.
    assert!(deaths >= 4 * messages.len(), "{deaths}");
}

impl Machine {
    /// The process dies at rest.
    fn kill(&mut self) {
        self.process = None;
        self.start();
        self.run();
    }
}

/// As QEMU sends messages that have no answer, and as a front-end may that sends several by one call.
#[test]
fn descriptors_stay_with_their_message_however_messages_are_sent() {
    let call = |index| Sent::new(FrontendReq::SET_VRING_CALL, &words(&[index])).with(vec![file()]);
    let enable = |index| Sent::new(FrontendReq::SET_VRING_ENABLE, &state(index, 1));
    let features = || Sent::new(FrontendReq::SET_FEATURES, &words(&[FEATURES]));
    let region = |guest: u64| words(&[guest, 1 << 20, 0x7000_0000 + guest, 0]);
    let table = [words(&[2]), region(0), region(1 << 20)].concat();
    let table = || Sent::new(FrontendReq::SET_MEM_TABLE, &table).with(vec![file(), file()]);
    for batches in [
        vec![vec![features()], vec![table()]],
        vec![vec![table(), features()]],
        vec![vec![call(0), enable(0)], vec![call(1), enable(1)]],
        vec![
            vec![features(), enable(0), enable(1)],
            vec![table()],
            vec![call(0)],
            vec![enable(1)],
        ],
    ] {
        let mut undisturbed = Machine::new(Vec::new());
        for sent in batches.iter().flatten() {
            undisturbed.tell(std::slice::from_ref(sent));
        }
        let expected = undisturbed.told();
        for points in 0.. {
            let mut machine = Machine::new(Vec::new());
            crash::dies_after(Some(points));
            machine.tell_at_once(&batches);
            let is_over = crash::dies_after(None).is_some();
            assert_eq!(machine.told(), expected, "{points}");
            machine.kill();
            assert_eq!(machine.told(), expected, "{points}");
            if is_over {
                assert!(points > 10, "{points}");
                break;
            }
        }
    }
    // Whoever sends a message with the descriptors of the next one gives them to the first, as to any backend.
    let mut machine = Machine::new(Vec::new());
    machine.tell_at_once(&[vec![features(), call(0)]]);
    let told = machine.told();
    let key = (FrontendReq::SET_VRING_CALL as u32, 0);
    assert_eq!(told.set[&key], (words(&[0]), None));
}

#[test]
fn processes_may_die_one_after_the_other() {
    let messages = session();
    let mut undisturbed = Machine::new(Vec::new());
    undisturbed.tell(&messages);
    for gap in 0..6 {
        for is_committed in [false, true] {
            let death = Death {
                commits: gap,
                is_committed,
            };
            let mut machine = Machine::new(vec![death; 2]);
            machine.tell(&messages);
            assert_eq!(machine.replies, undisturbed.replies, "{death:?}");
            machine.kill();
            assert_eq!(machine.told(), undisturbed.told(), "{death:?}");
        }
    }
}

#[test]
fn reply_that_was_cut_off_is_completed() {
    let mut machine = Machine::new(Vec::new());
    // The front-end does not read, and its socket is full in the middle of a reply.
    let question = Sent::new(FrontendReq::GET_FEATURES, &[]);
    let reply = message(GET_FEATURES, &words(&[FEATURES]));
    let mut asked = 0;
    loop {
        question.send(&machine.front_end, || ());
        asked += 1;
        let (proxy, daemon) = machine.process.as_mut().unwrap();
        for _ in 0..4 {
            assert_eq!(proxy.pass(NOTHING).unwrap(), None);
            daemon.serve();
        }
        if matches!(proxy.stage, Stage::Replying { .. }) {
            break;
        }
    }
    machine.process = None;
    machine.start();
    while machine.replies.len() < asked * reply.len() {
        let before = machine.replies.len();
        machine.run();
        assert!(machine.replies.len() > before, "no more replies");
    }
    assert_eq!(machine.replies, reply.repeat(asked));
}

#[test]
fn calls_are_signalled_once_after_a_resume() {
    let mut machine = Machine::new(Vec::new());
    let call = event();
    let message = Sent::new(FrontendReq::SET_VRING_CALL, &words(&[1]));
    machine.tell(&[message.with(vec![call.try_clone().unwrap()])]);
    let count = |call: &OwnedFd| {
        let mut count = [0; 8];
        rustix::io::read(call, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    assert_eq!(count(&call), 0);
    machine.kill();
    assert_eq!(count(&call), 1);
}

#[test]
fn display_socket_has_the_same_id_in_each_process() {
    let mut machine = Machine::new(Vec::new());
    let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let id = |machine: &Machine| {
        let (proxy, _) = machine.process.as_ref().unwrap();
        proxy.display_socket.take().and_then(|socket| socket.id())
    };
    let set = || Sent::new(FrontendReq::GPU_SET_SOCKET, &[]).with(vec![socket()]);
    machine.tell(&[set()]);
    let first = id(&machine);
    assert!(first.is_some());
    machine.kill();
    assert_eq!(id(&machine), first);
    machine.tell(&[set()]);
    let second = id(&machine);
    assert_ne!(second, first);
    machine.kill();
    assert_eq!(id(&machine), second);
}

#[test]
fn side_that_closed_the_connection_is_known() {
    let mut machine = Machine::new(Vec::new());
    machine.tell(&[Sent::new(FrontendReq::SET_OWNER, &[])]);
    let (_, far) = UnixStream::pair().unwrap();
    let front_end = std::mem::replace(&mut machine.front_end, far);
    drop(front_end);
    let (proxy, _) = machine.process.as_mut().unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), Some(ConnectionSide::FrontEnd));
    // Also if it left while no process was there.
    machine.process = None;
    machine.start();
    let (proxy, daemon) = machine.process.as_mut().unwrap();
    let closed = (0..8).find_map(|_| {
        daemon.serve();
        proxy.pass(NOTHING).unwrap()
    });
    assert_eq!(closed, Some(ConnectionSide::FrontEnd));
}

#[test]
fn invalid_messages_end_the_connection_as_ever() {
    let mut machine = Machine::new(Vec::new());
    let mut header = message(1, b"");
    header[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    machine.front_end.write_all(&header).unwrap();
    let (proxy, _) = machine.process.as_mut().unwrap();
    let refused = proxy.pass(NOTHING).unwrap_err();
    assert!(matches!(refused, ProxyError::TooLarge(u32::MAX)));
}

#[test]
fn daemon_that_refuses_a_message_has_its_reply_passed_on() {
    let mut machine = Machine::new(Vec::new());
    let sent = Sent::new(FrontendReq::SET_OWNER, &[]).acknowledged();
    sent.send(&machine.front_end, || ());
    let (proxy, daemon) = machine.process.as_mut().unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    let refusal = message(FrontendReq::SET_OWNER as u32, &words(&[1]));
    daemon.socket.write_all(&refusal).unwrap();
    let (_, gone) = UnixStream::pair().unwrap();
    daemon.socket = gone;
    assert_eq!(proxy.pass(NOTHING).unwrap(), Some(ConnectionSide::Backend));
    let mut reply = vec![0; refusal.len()];
    machine.front_end.read_exact(&mut reply).unwrap();
    assert_eq!(reply, refusal);
    // It would be refused again.
    assert!(machine.kept.next_process().is_err());
}

#[test]
fn all_memory_slots_are_carried_over() {
    let mut machine = Machine::new(Vec::new());
    let region = |slot: u64| {
        let fields = [0, slot << 20, 1 << 20, 0x7000_0000 + (slot << 20), 0];
        Sent::new(FrontendReq::ADD_MEM_REG, &words(&fields)).with(vec![file()])
    };
    let slots: Vec<_> = (0..509).map(region).collect();
    machine.tell(&slots);
    let told = machine.told();
    assert_eq!(told.regions.len(), 509);
    machine.kill();
    assert_eq!(machine.told().regions, told.regions);
    // Some of those that are kept together go, and others come.
    for slot in 0..40_u64 {
        let fields = [0, slot << 20, 1 << 20, 0x7000_0000 + (slot << 20), 0];
        machine.tell(&[Sent::new(FrontendReq::REM_MEM_REG, &words(&fields))]);
    }
    machine.tell(&[region(3), region(600)]);
    let told = machine.told();
    machine.kill();
    assert_eq!(machine.told().regions, told.regions);
    assert_eq!(told.regions.len(), 509 - 40 + 2);
}
