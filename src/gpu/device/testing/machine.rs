// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine around the device: an event loop, memory, a driver and a front-end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use vhost_user_backend::VringT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

pub(crate) use crate::backend::testing::split_queue::{NEXT, WRITE};

use crate::backend::testing::split_queue::{Descriptor, SplitQueue};
use crate::backend::{DeviceBuilder, FakeContext, MAX_QUEUE_SIZE};
use crate::gpu::device::tokens::DISPLAY;
use crate::gpu::device::*;
use crate::gpu::protocol::{HEADER_LEN, command, response};

pub(crate) const MEMORY: usize = 0x40_0000;
pub(crate) const QUEUE_SIZE: u16 = 256;

pub(crate) const FEATURES: u32 = 1;
pub(crate) const DISPLAY_INFO: u32 = 3;
pub(crate) const SCANOUT: u32 = 7;
pub(crate) const UPDATE: u32 = 8;

pub(crate) struct Machine {
    pub(crate) gpu: Gpu,
    pub(crate) program: FakeContext,
    pub(crate) memory: GuestMemory,
    pub(crate) vrings: Vec<Vring>,
    pub(crate) drivers: [SplitQueue; NUM_QUEUES],
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(|context| Options::default().build(context))
    }

    /// With a device that draws with `renderer`.
    pub(crate) fn drawing_with(renderer: impl Renderer + 'static) -> Self {
        Self::with(|context| {
            Gpu::new(
                context,
                Box::new(renderer),
                &Resolutions::default(),
                false,
                &KeptState::default(),
                HostVisibleMemory::default(),
            )
        })
    }

    pub(crate) fn with(build: impl FnOnce(DeviceContext) -> io::Result<Gpu>) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let program = FakeContext::new(memory.clone()).unwrap();
        let mut gpu = build(program.context()).unwrap();
        gpu.memory_changed();
        gpu.acked_features(gpu.features());
        let vrings = (0..NUM_QUEUES)
            .map(|_| Vring::new(memory.clone(), MAX_QUEUE_SIZE as u16).unwrap())
            .collect();
        let driver = |base| SplitQueue::new([base, base + 0x2000, base + 0x3000], QUEUE_SIZE);
        Self {
            gpu,
            program,
            memory,
            vrings,
            drivers: [driver(0x10_0000), driver(0x20_0000)],
        }
    }

    pub(crate) fn started() -> Self {
        let mut machine = Self::new();
        machine.start(0);
        machine
    }

    pub(crate) fn write(&self, addr: u64, bytes: &[u8]) {
        let memory = self.memory.memory();
        memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    pub(crate) fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let memory = self.memory.memory();
        memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    /// Starts the virtqueues: a new driver's at 0, a paused one's where they were.
    pub(crate) fn start(&mut self, position: u16) {
        let memory = self.memory.memory();
        for (driver, vring) in self.drivers.iter_mut().zip(&self.vrings) {
            if position == 0 {
                driver.begin(&memory, 0).unwrap();
            }
            vring.set_queue_size(driver.size);
            vring
                .set_queue_info(driver.descriptors, driver.available, driver.used)
                .unwrap();
            vring.set_queue_next_avail(driver.next_available);
            vring.set_queue_next_used(driver.next_used);
            vring.set_queue_ready(true);
            vring.set_enabled(true);
        }
        drop(memory);
        for queue in [CONTROL_QUEUE, CURSOR_QUEUE] {
            self.event(queue);
        }
        self.run();
    }

    pub(crate) fn stop(&mut self) {
        for (queue, vring) in self.vrings.iter().enumerate() {
            vring.set_queue_ready(false);
            self.gpu.stop_vring(queue as u32).unwrap();
        }
    }

    pub(crate) fn event(&mut self, token: u16) {
        self.gpu
            .handle_event(token, EventSet::IN, &self.vrings)
            .unwrap();
    }

    /// Serves what is ready within `patience` milliseconds, and tells what it was.
    pub(crate) fn serve_ready(&mut self, patience: i32) -> Vec<u16> {
        let ready = self.program.ready(patience).unwrap();
        let tokens: Vec<_> = ready.into_iter().map(|(token, _)| token).collect();
        for token in &tokens {
            self.event(*token);
        }
        tokens
    }

    /// Serves what the event loop has; waits for it up to `patience` where there is nothing.
    pub(crate) fn run_for(&mut self, patience: i32) {
        let mut timeout = patience;
        for _ in 0..1000 {
            if self.serve_ready(timeout).is_empty() {
                return;
            }
            timeout = 0;
        }
        panic!("the device never comes to rest");
    }

    pub(crate) fn run(&mut self) {
        self.run_for(0);
    }

    pub(crate) fn descriptor(
        &self,
        queue: u16,
        index: u16,
        (addr, len): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let descriptor = Descriptor {
            at: addr,
            len,
            flags,
            next,
        };
        let table = self.drivers[usize::from(queue)].descriptors;
        let memory = self.memory.memory();
        descriptor.write(&memory, table, index).unwrap();
    }

    /// Where the request and, 0x200 further, the response of `slot` lie.
    pub(crate) fn heap(&self, queue: u16, slot: u16) -> u64 {
        self.drivers[usize::from(queue)].descriptors + 0x4000 + u64::from(slot) * 0x400
    }

    /// Makes the chain at `head` available.
    pub(crate) fn publish(&mut self, queue: u16, head: u16) {
        let memory = self.memory.memory();
        let driver = &mut self.drivers[usize::from(queue)];
        driver.make_available(&memory, head).unwrap();
    }

    /// Submits a request whose response has room for `room` bytes.
    pub(crate) fn submit(&mut self, queue: u16, request: &[u8], room: u32) {
        let slot = self.drivers[usize::from(queue)].next_available % (QUEUE_SIZE / 2);
        let heap = self.heap(queue, slot);
        self.write(heap, request);
        let head = slot * 2;
        let flags = if room == 0 { 0 } else { NEXT };
        self.descriptor(queue, head, (heap, request.len() as u32), flags, head + 1);
        self.descriptor(queue, head + 1, (heap + 0x200, room), WRITE, 0);
        self.publish(queue, head);
    }

    /// The next completed request: head and length.
    pub(crate) fn completed(&mut self, queue: u16) -> Option<(u16, u32)> {
        let memory = self.memory.memory();
        let driver = &mut self.drivers[usize::from(queue)];
        let used = driver.take_used(&memory).unwrap()?;
        Some((used.head as u16, used.len))
    }

    /// The response of the next completed request of the control queue.
    pub(crate) fn response(&mut self) -> Option<Vec<u8>> {
        let (head, len) = self.completed(CONTROL_QUEUE)?;
        let heap = self.heap(CONTROL_QUEUE, head / 2);
        Some(self.read(heap + 0x200, len as usize))
    }

    pub(crate) fn kind(&mut self) -> Option<u32> {
        let response = self.response()?;
        Some(u32::from_le_bytes(response[..4].try_into().unwrap()))
    }

    #[track_caller]
    pub(crate) fn control(&mut self, command: u32, words: &[u32]) -> u32 {
        self.submit(CONTROL_QUEUE, &request(command, words), 24);
        self.event(CONTROL_QUEUE);
        self.run();
        self.kind().expect("a response")
    }

    /// Resource 1, 16 by 16 pixels, on scanout 0, flushed.
    #[track_caller]
    pub(crate) fn show(&mut self) {
        for (command, words) in [
            (command::RESOURCE_CREATE_2D, vec![1, 2, 16, 16]),
            (command::RESOURCE_ATTACH_BACKING, vec![1, 1, 0, 0, 1024, 0]),
            (command::TRANSFER_TO_HOST_2D, vec![0, 0, 16, 16, 0, 0, 1, 0]),
            (command::SET_SCANOUT, vec![0, 0, 16, 16, 0, 1]),
            (command::RESOURCE_FLUSH, vec![0, 0, 16, 16, 1, 0]),
        ] {
            assert_eq!(self.control(command, &words), response::OK_NODATA);
        }
    }

    pub(crate) fn plug_display(&mut self) -> FrontEnd {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        self.gpu
            .set_gpu_socket(ours.into())
            .expect("a GPU has a display");
        self.run();
        FrontEnd(socket)
    }

    pub(crate) fn plug_settled_display(&mut self) -> FrontEnd {
        let mut front_end = self.plug_display();
        assert_eq!(front_end.messages(), [FEATURES]);
        front_end.reply(FEATURES, &0_u64.to_ne_bytes());
        self.run();
        front_end
    }

    pub(crate) fn watches_display(&self) -> usize {
        self.program.watched(DISPLAY).unwrap()
    }
}

pub(crate) struct FrontEnd(pub(crate) UnixStream);

impl FrontEnd {
    /// What kinds of messages arrived.
    pub(crate) fn messages(&mut self) -> Vec<u32> {
        let payloads = self.payloads();
        payloads.into_iter().map(|(kind, _)| kind).collect()
    }

    /// What messages arrived: their kinds, and what is in them.
    pub(crate) fn payloads(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        let mut rest = &bytes[..];
        let mut messages = Vec::new();
        while let Some((header, payload)) = rest.split_at_checked(12) {
            let word = |i: usize| u32::from_ne_bytes(header[i * 4..][..4].try_into().unwrap());
            let (payload, next) = payload
                .split_at_checked(word(2) as usize)
                .expect("whole messages");
            messages.push((word(0), payload.to_vec()));
            rest = next;
        }
        messages
    }

    pub(crate) fn reply(&mut self, kind: u32, payload: &[u8]) {
        let words = [kind, 4, payload.len() as u32];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend(payload);
        self.0.write_all(&bytes).unwrap();
    }
}

pub(crate) fn request(command: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = command.to_le_bytes().to_vec();
    bytes.resize(HEADER_LEN, 0);
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    bytes
}
