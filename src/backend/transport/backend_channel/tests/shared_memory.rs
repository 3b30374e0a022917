// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that the front-end is asked to map.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};

use super::*;
use crate::backend::{SharedMemory, SharedMemoryOutcome, SharedMemoryRegion, SharedMemoryRequest};

const TOKEN: u16 = FIRST_TOKEN + 1;
const MAP: u32 = 9;
const UNMAP: u32 = 10;

/// A device with a region, and its front-end.
struct Mapped {
    joined: Joined,
    memory: SharedMemory,
}

fn memfd(bytes: &[u8]) -> Arc<OwnedFd> {
    let file = memfd_create("host", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 0x4000).unwrap();
    rustix::io::pwrite(&file, bytes, 0).unwrap();
    Arc::new(file)
}

fn map(offset: u64) -> SharedMemoryRequest {
    SharedMemoryRequest::Map {
        file: memfd(b"host"),
        file_offset: 0x1000,
        offset,
        len: 0x2000,
    }
}

fn unmap(offset: u64) -> SharedMemoryRequest {
    let len = 0x2000;
    SharedMemoryRequest::Unmap { offset, len }
}

fn bytes(number: u32, fields: [u64; 5]) -> Vec<u8> {
    let payload = fields.map(u64::to_ne_bytes);
    [
        words(&[number, 1 | 1 << 3, 40]).as_slice(),
        payload.as_flattened(),
    ]
    .concat()
}

impl Mapped {
    /// Whose virtqueues run, and whose front-end asked for the region.
    fn running() -> Self {
        let joined = Joined::running();
        let region = SharedMemoryRegion::new(1, 1 << 20).unwrap();
        let memory = joined.context.context().shared_memory(region, TOKEN);
        let mut mapped = Self {
            memory: memory.unwrap(),
            joined,
        };
        // It is offered to a front-end that connects now.
        let (front_end, backend) = UnixStream::pair().unwrap();
        front_end.set_nonblocking(true).unwrap();
        mapped.joined.front_end = front_end;
        mapped.joined.connect(backend);
        let features = VhostUserProtocolFeatures::empty().bits().to_ne_bytes();
        let channel = &mut mapped.joined.channel;
        channel.note(SET_PROTOCOL_FEATURES, &features, &[]);
        let features = VhostUserProtocolFeatures::all().bits().to_ne_bytes();
        channel.note(SET_PROTOCOL_FEATURES, &features, &[]);
        channel.note(GET_SHMEM_CONFIG, &[], &[]);
        mapped
    }

    fn serve(&mut self) {
        self.joined.channel.serve(true, false);
    }

    /// The message that the front-end is sent, and its descriptors. The front-end runs the device meanwhile.
    #[track_caller]
    fn received(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        let (mut bytes, fds) = self.read();
        assert_eq!(bytes.len(), 1);
        let is_offer_read = self.joined.channel.is_offer_read();
        assert!(is_offer_read);
        self.joined.channel.serve(true, is_offer_read);
        bytes.extend(self.read().0);
        (bytes, fds)
    }

    /// What the front-end can read, and its descriptors.
    #[track_caller]
    fn read(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; 100];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.joined.front_end, &mut into, &mut control, flags).unwrap();
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        bytes.truncate(received.bytes);
        (bytes, fds)
    }

    /// Answers, and tells of the guest's memory as QEMU does.
    fn answer(&mut self, number: u32, value: u64) {
        self.joined.answer([number, 1 | 1 << 2, 8], value);
        self.joined.channel.note(ADD_MEM_REG, &[0; 40], &[]);
        self.serve();
    }

    fn is_woken(&self) -> bool {
        let event = (TOKEN, EventSet::IN);
        self.joined.context.ready(0).unwrap().contains(&event)
    }
}

#[test]
fn front_end_gets_the_file_and_says_when_it_is_mapped() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.is_available());
    assert!(mapped.memory.send(map(0x8000)));
    // One at a time.
    assert!(!mapped.memory.send(map(0)));
    mapped.serve();
    let (message, fds) = mapped.received();
    assert_eq!(message, bytes(MAP, [1, 0x1000, 0x8000, 0x2000, 1]));
    let [file] = &fds[..] else {
        panic!("{fds:?}");
    };
    let mut content = [0; 4];
    rustix::io::pread(file, &mut content, 0).unwrap();
    assert_eq!(&content, b"host");
    assert_eq!(mapped.memory.take_outcome(), None);
    assert!(!mapped.is_woken());
    mapped.answer(MAP, 0);
    assert!(mapped.is_woken());
    let done = Some(SharedMemoryOutcome::Done);
    assert_eq!(mapped.memory.take_outcome(), done);
    assert!(!mapped.is_woken());
    assert_eq!(mapped.memory.take_outcome(), None);

    assert!(mapped.memory.send(unmap(0x8000)));
    mapped.serve();
    let (message, fds) = mapped.received();
    assert_eq!(message, bytes(UNMAP, [1, 0, 0x8000, 0x2000, 0]));
    assert!(fds.is_empty());
    mapped.answer(UNMAP, 0);
    assert_eq!(mapped.memory.take_outcome(), done);
}

#[test]
fn refused_map_leaves_the_channel_to_others() {
    let mut mapped = Mapped::running();
    for _ in 0..2 {
        assert!(mapped.memory.send(map(0)));
        mapped.serve();
        mapped.received();
        mapped.answer(MAP, 1);
        let refused = Some(SharedMemoryOutcome::Refused);
        assert_eq!(mapped.memory.take_outcome(), refused);
        assert!(mapped.memory.is_available());
    }
}

/// QEMU shows the map to the guest after its answer.
#[test]
fn map_is_done_once_the_guest_sees_it() {
    let done = Some(SharedMemoryOutcome::Done);
    for tells in [ADD_MEM_REG, SET_MEM_TABLE, GET_VRING_BASE] {
        let mut mapped = Mapped::running();
        assert!(mapped.memory.send(map(0)));
        // Not of this map.
        mapped.joined.channel.note(ADD_MEM_REG, &[0; 40], &[]);
        mapped.serve();
        mapped.received();
        mapped.joined.answer([MAP, 5, 8], 0);
        assert_eq!(mapped.memory.take_outcome(), None);
        mapped.joined.device.send();
        mapped.serve();
        assert_eq!(mapped.joined.sent(), NONE);
        mapped.joined.channel.note(tells, &[0; 40], &[]);
        assert_eq!(mapped.memory.take_outcome(), done, "{tells}");
    }
    // It is told before the answer is read.
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    mapped.received();
    mapped.joined.channel.note(ADD_MEM_REG, &[0; 40], &[]);
    mapped.joined.answer([MAP, 5, 8], 0);
    assert_eq!(mapped.memory.take_outcome(), done);
}

/// An answer to another request than the last one is no answer.
#[test]
fn wrong_answer_ends_the_channel() {
    for (number, flags, size) in [(2, 5, 8), (UNMAP, 5, 8), (MAP, 1, 8), (MAP, 5, 9)] {
        let mut mapped = Mapped::running();
        assert!(mapped.memory.send(map(0)));
        mapped.serve();
        mapped.received();
        mapped.joined.answer([number, flags, size], 0);
        let lost = Some(SharedMemoryOutcome::Lost);
        assert_eq!(mapped.memory.take_outcome(), lost);
        assert!(!mapped.memory.is_available());
        assert!(!mapped.memory.send(map(0)));
    }
}

/// QEMU 11.1 crashes if it is asked while it does not run the device.
#[test]
fn requests_are_withdrawn_when_the_front_end_begins_to_stop_the_device() {
    let stops: [(u32, Vec<u8>); 4] = [
        (GET_VRING_BASE, words(&[0, 0])),
        (SET_VRING_ENABLE, words(&[1, 0])),
        (RESET_DEVICE, Vec::new()),
        (RESET_OWNER, Vec::new()),
    ];
    for (stop, payload) in stops {
        let mut mapped = Mapped::running();
        assert!(mapped.memory.send(map(0)));
        mapped.joined.channel.note(stop, &payload, &[]);
        // Before the daemon stops anything, and although the front-end goes on at once.
        assert!(mapped.is_woken(), "request {stop}");
        mapped.joined.start();
        mapped.serve();
        assert_eq!(mapped.joined.sent(), NONE, "request {stop}");
        let withdrawn = Some(SharedMemoryOutcome::Withdrawn);
        assert_eq!(mapped.memory.take_outcome(), withdrawn);
        assert!(mapped.memory.send(map(0)));
        mapped.serve();
        assert_eq!(mapped.received().0.len(), 52, "request {stop}");
    }
}

/// What was sent before is answered, whatever the front-end does meanwhile.
#[test]
fn request_under_way_is_answered_while_the_device_is_stopped() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    mapped.received();
    let stop = words(&[0, 0]);
    mapped.joined.channel.note(GET_VRING_BASE, &stop, &[]);
    mapped.serve();
    assert_eq!(mapped.memory.take_outcome(), None);
    mapped.answer(MAP, 0);
    let done = Some(SharedMemoryOutcome::Done);
    assert_eq!(mapped.memory.take_outcome(), done);
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    let withdrawn = Some(SharedMemoryOutcome::Withdrawn);
    assert_eq!(mapped.memory.take_outcome(), withdrawn);
    assert_eq!(mapped.joined.sent(), NONE);
}

/// QEMU reads a request at once and to its end, and crashes if it reads one while it does not run the device.
#[test]
fn request_is_finished_only_while_the_front_end_reads_it() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    let is_awaited = |mapped: &Mapped| {
        let fd = mapped.joined.channel.awaited_fd().unwrap();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
    };
    for _ in 0..3 {
        assert!(is_awaited(&mapped));
        assert!(!mapped.joined.channel.is_offer_read());
        mapped.serve();
    }
    let (first, fds) = mapped.read();
    assert_eq!((first, fds.len()), (vec![MAP as u8], 1));
    assert!(!is_awaited(&mapped));
    assert!(mapped.joined.channel.is_offer_read());
    // Not before it is known that no message came that stops the device.
    mapped.serve();
    mapped.joined.channel.serve(false, true);
    assert_eq!(mapped.joined.sent(), NONE);
    mapped.joined.channel.serve(true, true);
    assert_eq!(mapped.read().0.len(), 51);
    assert!(is_awaited(&mapped));
    mapped.answer(MAP, 0);
    let done = Some(SharedMemoryOutcome::Done);
    assert_eq!(mapped.memory.take_outcome(), done);
}

/// Whether it has read the beginning, or reads all later.
#[test]
fn front_end_that_stops_the_device_reads_a_request_that_does_nothing() {
    for is_read in [false, true] {
        let mut mapped = Mapped::running();
        assert!(mapped.memory.send(map(0)));
        mapped.serve();
        let mut read = match is_read {
            true => mapped.read().0,
            false => Vec::new(),
        };
        let is_offer_read = mapped.joined.channel.is_offer_read();
        let stop = words(&[0, 0]);
        mapped.joined.channel.note(GET_VRING_BASE, &stop, &[]);
        mapped.joined.channel.serve(true, is_offer_read);
        read.extend(mapped.joined.sent());
        assert_eq!(read, words(&[1 << 8 | MAP, 1, 0]));
        let withdrawn = Some(SharedMemoryOutcome::Withdrawn);
        assert_eq!(mapped.memory.take_outcome(), withdrawn);
        mapped.joined.start();
        assert!(mapped.memory.send(unmap(0)));
        mapped.serve();
        assert_eq!(mapped.received().0.len(), 52);
        // So with a change of the configuration.
        mapped.answer(UNMAP, 0);
        mapped.joined.device.send();
        mapped.serve();
        mapped.joined.channel.note(GET_VRING_BASE, &stop, &[]);
        assert_eq!(mapped.joined.sent(), words(&[1 << 8 | 2, 1, 0]));
        assert!(mapped.joined.device.woke());
    }
}

#[test]
fn nothing_is_mapped_while_a_message_of_the_front_end_is_read() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.joined.channel.serve(false, false);
    assert_eq!(mapped.joined.sent(), NONE);
    assert!(mapped.memory.cancel());
    assert!(!mapped.memory.cancel());
    mapped.serve();
    assert_eq!(mapped.joined.sent(), NONE);
}

#[test]
fn configuration_changes_and_maps_wait_for_each_other() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    mapped.received();
    mapped.joined.device.send();
    mapped.serve();
    assert_eq!(mapped.joined.sent(), NONE);
    mapped.answer(MAP, 0);
    assert_eq!(mapped.received().0, words(&MESSAGE));
    mapped.memory.take_outcome().unwrap();
    assert!(mapped.memory.send(unmap(0)));
    mapped.serve();
    assert_eq!(mapped.joined.sent(), NONE);
    mapped.answer(2, 0);
    assert_eq!(mapped.joined.device.state(), ConfigChangeState::Ready);
    assert_eq!(mapped.received().0.len(), 52);
}

/// Neither one that does not ask for the region, nor one that does not answer.
#[test]
fn front_ends_that_map_nothing_are_not_asked() {
    let mut joined = Joined::running();
    let region = SharedMemoryRegion::new(1, 1 << 20).unwrap();
    let memory = joined.context.context().shared_memory(region, TOKEN);
    let memory = memory.unwrap();
    joined.connect(UnixStream::pair().unwrap().0);
    assert!(!memory.is_available());
    assert!(!memory.send(map(0)));
    let mut mapped = Mapped::running();
    let features = VhostUserProtocolFeatures::BACKEND_REQ.bits().to_ne_bytes();
    let channel = &mut mapped.joined.channel;
    channel.note(SET_PROTOCOL_FEATURES, &features, &[]);
    assert!(!mapped.memory.is_available());
    assert!(!mapped.memory.send(map(0)));
}

#[test]
fn closed_channel_is_noticed() {
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.serve();
    mapped.joined.front_end = UnixStream::pair().unwrap().0;
    // What it was sent is gone with it.
    let is_offer_read = mapped.joined.channel.is_offer_read();
    mapped.joined.channel.serve(true, is_offer_read);
    let lost = Some(SharedMemoryOutcome::Lost);
    assert_eq!(mapped.memory.take_outcome(), lost);
    // Also while it is sent.
    let mut mapped = Mapped::running();
    assert!(mapped.memory.send(map(0)));
    mapped.joined.front_end = UnixStream::pair().unwrap().0;
    mapped.serve();
    assert_eq!(mapped.memory.take_outcome(), lost);
}

/// No successor would know what is mapped.
#[test]
fn device_that_outlives_its_process_has_no_region() {
    let mut kept = KeptState::new().unwrap();
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let continuity = kept.next_process().unwrap();
    let context = FakeContext::with_continuity(memory, continuity).unwrap();
    let region = SharedMemoryRegion::new(1, 1 << 20).unwrap();
    let refused = context.context().shared_memory(region, TOKEN).err();
    assert_eq!(refused.unwrap().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn regions_have_a_power_of_two() {
    for len in [4096, 1 << 30, 1 << 40] {
        assert_eq!(SharedMemoryRegion::new(1, len).unwrap().len(), len);
    }
    for len in [0, 1, 2048, 3 << 20, 1 << 41, u64::MAX] {
        SharedMemoryRegion::new(1, len).unwrap_err();
    }
}

/// QEMU says nothing of a map in a BAR that the guest has hidden.
#[test]
fn map_that_the_guest_does_not_see_is_done_after_a_time() {
    let mut mapped = Mapped::running();
    for offset in [0, 0x4000] {
        assert!(mapped.memory.send(map(offset)));
        mapped.serve();
        mapped.received();
        mapped.joined.answer([MAP, 1 | 1 << 2, 8], 0);
        mapped.serve();
        assert_eq!(mapped.memory.take_outcome(), None);
        let timer = mapped.joined.channel.awaited_fd().expect("an event");
        let mut fds = [PollFd::from_borrowed_fd(timer, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(0));
        let limit = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&limit)), Ok(1));
        mapped.serve();
        let outcome = mapped.memory.take_outcome();
        assert_eq!(outcome, Some(SharedMemoryOutcome::Done));
        assert!(mapped.joined.channel.awaited_fd().is_none());
    }
    // One that the guest sees is done as soon as it does.
    assert!(mapped.memory.send(map(0x8000)));
    mapped.serve();
    mapped.received();
    mapped.answer(MAP, 0);
    let outcome = mapped.memory.take_outcome();
    assert_eq!(outcome, Some(SharedMemoryOutcome::Done));
}
