// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests that wait for the front-end to map memory of the host.

use super::*;
use crate::backend::SharedMemoryLink;
use crate::backend::SharedMemoryRequest;
use crate::gpu::renderer::fake_host_memory::{CACHING, FakeHostMemory};
use crate::gpu::resource::Budget;

const PAGE: u32 = 4096;
const UNREF: u32 = command::RESOURCE_UNREF;
const MAP: u32 = command::RESOURCE_MAP_BLOB;
const UNMAP: u32 = command::RESOURCE_UNMAP_BLOB;

/// A device with a region, and with blobs of a page each; the driver runs.
struct Mapper {
    machine: Machine,
    front_end: SharedMemoryLink,
}

impl Mapper {
    fn with_blobs(count: u32) -> Self {
        let mut machine = Machine::with(|context| {
            let renderer = FakeHostMemory::new(Budget::new(64 << 20), context.memory().clone());
            Gpu::new(
                context,
                Box::new(renderer),
                &Resolutions::default(),
                false,
                &KeptState::default(),
                HostVisibleMemory::default(),
            )
        });
        let front_end = machine.program.requests().shared_memory.clone();
        front_end.asked();
        front_end.set_channel(true);
        machine.start(0);
        let mut mapper = Self { machine, front_end };
        mapper.create(count);
        mapper
    }

    fn create(&mut self, count: u32) {
        for id in 1..=count {
            let words = [id, 2, 1, 0, 0, 0, PAGE, 0];
            let created = self.machine.control(command::RESOURCE_CREATE_BLOB, &words);
            assert_eq!(created, response::OK_NODATA);
        }
    }

    /// Submits a request with room for a response.
    fn submit(&mut self, command: u32, words: &[u32]) {
        let request = request(command, words);
        self.machine.submit(CONTROL_QUEUE, &request, 32);
        self.machine.event(CONTROL_QUEUE);
        self.machine.run();
    }

    fn map(&mut self, id: u32) {
        self.submit(MAP, &[id, 0, id * PAGE, 0]);
    }

    /// What the front-end reads: where in the region it is to map, or to unmap.
    fn asked(&mut self) -> Option<(bool, u64)> {
        let (region, request) = self.front_end.take_wanted()?;
        assert_eq!((region.id(), region.len()), (1, 1 << 30));
        Some(match request {
            SharedMemoryRequest::Map { offset, len, .. } => {
                assert_eq!(len, u64::from(PAGE));
                (true, offset / len)
            }
            SharedMemoryRequest::Unmap { offset, len } => (false, offset / len),
        })
    }

    fn answer(&mut self, is_done: bool) {
        self.front_end.answered(is_done);
        self.machine.run();
    }

    /// Does what it is asked, and tells what that was.
    fn map_all(&mut self) -> Vec<(bool, u64)> {
        std::iter::from_fn(|| {
            let asked = self.asked()?;
            self.answer(true);
            Some(asked)
        })
        .collect()
    }

    fn kinds(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.machine.kind()).collect()
    }

    /// As the front-end does: the transport withdraws first.
    fn stop(&mut self) {
        self.front_end.withdraw();
        self.machine.stop();
        self.machine.run();
    }

    /// Starts the virtqueues where they were.
    fn go_on(&mut self) {
        let position = self.machine.drivers[0].next_available;
        assert_ne!(position, 0);
        self.machine.start(position);
    }
}

#[test]
fn other_requests_go_on_while_the_front_end_maps() {
    let mut mapper = Mapper::with_blobs(2);
    mapper.map(1);
    assert_eq!(mapper.machine.response(), None);
    mapper.map(2);
    mapper.submit(CREATE, &[3, 2, 1, 1]);
    assert_eq!(mapper.kinds(), [response::OK_NODATA]);
    assert_eq!(mapper.asked(), Some((true, 1)));
    assert_eq!(mapper.asked(), None);
    mapper.answer(true);
    let answer = mapper.machine.response().unwrap();
    assert_eq!(answer.len(), 32);
    assert_eq!(answer[..4], response::OK_MAP_INFO.to_le_bytes());
    assert_eq!(answer[24..28], CACHING.to_le_bytes());
    assert_eq!(mapper.asked(), Some((true, 2)));
    mapper.answer(false);
    assert_eq!(mapper.kinds(), [response::ERR_UNSPEC]);
    // Destroyed while it is mapped.
    mapper.submit(UNREF, &[1, 0]);
    assert_eq!(mapper.machine.response(), None);
    assert_eq!(mapper.map_all(), [(false, 1)]);
    assert_eq!(mapper.kinds(), [response::OK_NODATA]);
    mapper.submit(UNMAP, &[1, 0]);
    assert_eq!(mapper.kinds(), [response::ERR_INVALID_PARAMETER]);
    assert_eq!(mapper.asked(), None);
}

#[test]
fn fences_are_returned_when_the_front_end_has_mapped() {
    let mut mapper = Mapper::with_blobs(1);
    let mut map = request(MAP, &[1, 0, 0, 0]);
    map[4] = 1;
    map[8] = 7;
    mapper.machine.submit(CONTROL_QUEUE, &map, 32);
    mapper.machine.event(CONTROL_QUEUE);
    mapper.machine.run();
    assert_eq!(mapper.machine.response(), None);
    mapper.map_all();
    let answer = mapper.machine.response().unwrap();
    assert_eq!((answer[4], answer[8]), (1, 7));
}

/// The front-end keeps its maps over a pause, and must not be asked during it.
#[test]
fn paused_guest_goes_on_with_what_it_waited_for() {
    let mut mapper = Mapper::with_blobs(3);
    for id in 1..=3 {
        mapper.map(id);
    }
    assert_eq!(mapper.asked(), Some((true, 1)));
    mapper.answer(true);
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
    // The second one waits to be sent.
    mapper.stop();
    assert_eq!(mapper.asked(), None);
    mapper.machine.run();
    mapper.go_on();
    assert_eq!(mapper.machine.response(), None);
    assert_eq!(mapper.asked(), Some((true, 2)));
    // It is answered during the next pause.
    mapper.stop();
    mapper.answer(true);
    assert_eq!(mapper.machine.response(), None);
    assert_eq!(mapper.asked(), None);
    mapper.go_on();
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
    assert_eq!(mapper.map_all(), [(true, 3)]);
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
    mapper.submit(UNMAP, &[1, 0]);
    assert_eq!(mapper.map_all(), [(false, 1)]);
    assert_eq!(mapper.kinds(), [response::OK_NODATA]);
}

/// The device is busy, and sees neither that it was stopped nor what became of its request before it is started again.
#[test]
fn short_pause_loses_no_request() {
    let mut mapper = Mapper::with_blobs(1);
    mapper.map(1);
    mapper.front_end.withdraw();
    mapper.machine.stop();
    mapper.go_on();
    assert_eq!(mapper.map_all(), [(true, 1)]);
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
}

#[test]
fn withdrawn_request_is_not_sent_again_before_a_virtqueue_starts() {
    let mut mapper = Mapper::with_blobs(1);
    mapper.map(1);
    // Only the other virtqueue is stopped.
    mapper.front_end.withdraw();
    mapper.machine.run();
    assert_eq!(mapper.asked(), None);
    mapper.machine.event(CURSOR_QUEUE);
    assert_eq!(mapper.map_all(), [(true, 1)]);
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
}

#[test]
fn new_driver_has_no_maps_and_no_requests() {
    for is_sent in [false, true] {
        let mut mapper = Mapper::with_blobs(2);
        mapper.map(1);
        mapper.map_all();
        mapper.map(2);
        if is_sent {
            assert_eq!(mapper.asked(), Some((true, 2)));
        }
        mapper.kinds();
        mapper.stop();
        mapper.machine.gpu.get_config(0, 16);
        mapper.machine.start(0);
        assert_eq!(mapper.machine.response(), None);
        mapper.create(2);
        mapper.map(2);
        if is_sent {
            assert_eq!(mapper.asked(), None);
            mapper.answer(true);
            assert_eq!(mapper.map_all(), [(false, 2), (true, 2)]);
        } else {
            assert_eq!(mapper.map_all(), [(true, 2)]);
        }
        assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
    }
}

#[test]
fn reset_drops_what_waits() {
    let mut mapper = Mapper::with_blobs(1);
    mapper.map(1);
    mapper.front_end.withdraw();
    mapper.machine.gpu.reset_device();
    mapper.machine.run();
    assert_eq!((mapper.kinds(), mapper.asked()), (vec![], None));
    mapper.create(1);
    mapper.map(1);
    mapper.map_all();
    assert_eq!(mapper.kinds(), [response::OK_MAP_INFO]);
}

#[test]
fn requests_fail_when_the_front_end_closes_the_channel() {
    let mut mapper = Mapper::with_blobs(3);
    for id in 1..=2 {
        mapper.map(id);
    }
    mapper.submit(UNREF, &[1, 0]);
    mapper.asked();
    mapper.front_end.set_channel(false);
    mapper.machine.run();
    let refused = response::ERR_UNSPEC;
    assert_eq!(mapper.kinds(), [refused, refused, response::OK_NODATA]);
    mapper.map(3);
    assert_eq!(mapper.kinds(), [refused]);
    mapper.submit(UNREF, &[1, 0]);
    assert_eq!(mapper.kinds(), [response::ERR_INVALID_RESOURCE_ID]);
}

/// As QEMU's vhost-user-gpu-pci does.
#[test]
fn front_end_that_does_not_ask_for_the_region_maps_nothing() {
    let machine = Machine::new();
    assert_eq!(machine.program.requests().shared_memory.region(), None);
    let mut mapper = Mapper::with_blobs(1);
    mapper.front_end.set_channel(false);
    mapper.map(1);
    assert_eq!(mapper.kinds(), [response::ERR_UNSPEC]);
    assert_eq!(mapper.asked(), None);
}

/// A front-end that does not answer, and a driver that does not wait.
#[test]
fn waiting_requests_are_at_most_the_entries_of_the_queue() {
    let mut mapper = Mapper::with_blobs(1);
    let words = [1, 0, 0, 0];
    mapper.submit(MAP, &words);
    mapper.asked();
    // The same chain, again and again: the resource is unmapped, and mapped again.
    let slots = [MAP, UNMAP].map(|command| {
        mapper.submit(command, &words);
        (mapper.machine.drivers[0].next_available.wrapping_sub(1) % (QUEUE_SIZE / 2)) * 2
    });
    for _ in 0..3 {
        for _ in 0..QUEUE_SIZE / 4 {
            for slot in [slots[1], slots[0]] {
                mapper.machine.publish(CONTROL_QUEUE, slot);
            }
        }
        mapper.machine.event(CONTROL_QUEUE);
        mapper.machine.run();
    }
    // Those that are wrong are answered at once.
    let early = mapper.kinds().len();
    let waiting = mapper.machine.vrings[0].next_available();
    assert!(usize::from(waiting) <= usize::from(QUEUE_SIZE) + early + 1);
    mapper.answer(true);
    mapper.map_all();
    let rest = mapper.kinds().len();
    let made = usize::from(mapper.machine.drivers[0].next_available);
    // One is the blob's.
    assert_eq!(early + rest + 1, made);
}
