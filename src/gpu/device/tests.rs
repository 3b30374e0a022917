//! The device with real guest memory, rings and descriptors, event by event.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

use super::super::wire::{Modes, command};
use super::*;

const MEMORY: usize = 0x40_0000;
const QUEUE_SIZE: u16 = 256;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

const FEATURES: u32 = 1;
const DISPLAY_INFO: u32 = 3;
const SCANOUT: u32 = 7;
const UPDATE: u32 = 8;

/// The program around the device: a real event loop.
#[derive(Clone)]
struct Program(Arc<Inner>);

struct Inner {
    epoll: Epoll,
    watched: Mutex<HashMap<i32, u16>>,
    status: Mutex<Vec<String>>,
    socket: Mutex<Option<UnixStream>>,
}

impl Surroundings for Program {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        let event = EpollEvent::new(interest, token.into());
        self.0
            .epoll
            .ctl(ControlOperation::Add, fd.as_raw_fd(), event)?;
        self.0.watched.lock().unwrap().insert(fd.as_raw_fd(), token);
        Ok(())
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let event = EpollEvent::default();
        self.0.watched.lock().unwrap().remove(&fd.as_raw_fd());
        self.0
            .epoll
            .ctl(ControlOperation::Delete, fd.as_raw_fd(), event)
    }

    fn status(&self, text: &str) {
        self.0.status.lock().unwrap().push(text.to_string());
    }

    fn take_gpu_socket(&self) -> Option<UnixStream> {
        self.0.socket.lock().unwrap().take()
    }
}

/// The driver's side of a ring.
struct Driver {
    base: u64,
    submitted: u16,
    seen: u16,
}

impl Driver {
    fn avail(&self) -> u64 {
        self.base + 0x2000
    }

    fn used(&self) -> u64 {
        self.base + 0x3000
    }

    fn heap(&self, slot: u16) -> u64 {
        self.base + 0x4000 + u64::from(slot) * 0x400
    }
}

struct Machine {
    gpu: Gpu,
    program: Program,
    memory: GuestMemory,
    vrings: Vec<VringMutex>,
    drivers: [Driver; NUM_QUEUES],
}

impl Machine {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let program = Program(Arc::new(Inner {
            epoll: Epoll::new().unwrap(),
            watched: Mutex::default(),
            status: Mutex::default(),
            socket: Mutex::default(),
        }));
        let mut gpu = Gpu::new(Options::default());
        gpu.begin(Box::new(program.clone())).unwrap();
        gpu.update_memory(memory.clone()).unwrap();
        gpu.acked_features(gpu.features());
        let vrings = (0..NUM_QUEUES)
            .map(|_| VringMutex::new(memory.clone(), MAX_QUEUE_SIZE as u16).unwrap())
            .collect();
        let driver = |base| Driver {
            base,
            submitted: 0,
            seen: 0,
        };
        Self {
            gpu,
            program,
            memory,
            vrings,
            drivers: [driver(0x10_0000), driver(0x20_0000)],
        }
    }

    fn started() -> Self {
        let mut machine = Self::new();
        machine.start(0);
        machine
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        let memory = self.memory.memory();
        memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let memory = self.memory.memory();
        memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    /// Starts the rings: a new driver's at 0, a paused one's where they were.
    fn start(&mut self, position: u16) {
        for (queue, vring) in self.vrings.iter().enumerate() {
            let driver = &mut self.drivers[queue];
            if position == 0 {
                driver.submitted = 0;
                driver.seen = 0;
            }
            vring.set_queue_size(QUEUE_SIZE);
            vring
                .set_queue_info(driver.base, driver.avail(), driver.used())
                .unwrap();
            vring.set_queue_next_avail(driver.submitted);
            vring.set_queue_next_used(driver.seen);
            vring.set_queue_ready(true);
            vring.set_enabled(true);
        }
        if position == 0 {
            for queue in 0..NUM_QUEUES {
                self.write(self.drivers[queue].avail() + 2, &[0; 2]);
                self.write(self.drivers[queue].used() + 2, &[0; 2]);
            }
        }
        for queue in [CONTROL_QUEUE, CURSOR_QUEUE] {
            self.event(queue);
        }
        self.run();
    }

    fn stop(&mut self) {
        for (queue, vring) in self.vrings.iter().enumerate() {
            vring.set_queue_ready(false);
            self.gpu.stop_vring(queue as u32).unwrap();
        }
    }

    fn event(&mut self, token: u16) {
        self.gpu
            .handle_event(token, EventSet::IN, &self.vrings, 0)
            .unwrap();
    }

    /// Serves what the event loop has; waits for it up to `patience` where there is nothing.
    fn run_for(&mut self, patience: i32) {
        let mut events = [EpollEvent::default(); 8];
        let mut timeout = patience;
        for _ in 0..1000 {
            let count = self.program.0.epoll.wait(timeout, &mut events).unwrap();
            if count == 0 {
                return;
            }
            timeout = 0;
            for event in &events[..count] {
                self.event(event.data() as u16);
            }
        }
        panic!("the device never comes to rest");
    }

    fn run(&mut self) {
        self.run_for(0);
    }

    fn descriptor(&self, queue: u16, index: u16, (addr, len): (u64, u32), flags: u16, next: u16) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let base = self.drivers[usize::from(queue)].base;
        self.write(base + u64::from(index) * 16, &bytes);
    }

    /// Makes the chain at `head` available.
    fn publish(&mut self, queue: u16, head: u16) {
        let driver = &mut self.drivers[usize::from(queue)];
        let slot = u64::from(driver.submitted % QUEUE_SIZE);
        driver.submitted = driver.submitted.wrapping_add(1);
        let (avail, submitted) = (driver.avail(), driver.submitted);
        self.write(avail + 4 + slot * 2, &head.to_le_bytes());
        self.write(avail + 2, &submitted.to_le_bytes());
    }

    /// Submits a request whose response has room for `room` bytes.
    fn submit(&mut self, queue: u16, request: &[u8], room: u32) {
        let driver = &self.drivers[usize::from(queue)];
        let slot = driver.submitted % (QUEUE_SIZE / 2);
        let heap = driver.heap(slot);
        self.write(heap, request);
        let head = slot * 2;
        let flags = if room == 0 { 0 } else { NEXT };
        self.descriptor(queue, head, (heap, request.len() as u32), flags, head + 1);
        self.descriptor(queue, head + 1, (heap + 0x200, room), WRITE, 0);
        self.publish(queue, head);
    }

    /// The next completed request: head and length.
    fn completed(&mut self, queue: u16) -> Option<(u16, u32)> {
        let driver = &self.drivers[usize::from(queue)];
        let (used, seen) = (driver.used(), driver.seen);
        let index = u16::from_le_bytes(self.read(used + 2, 2).try_into().unwrap());
        if index == seen {
            return None;
        }
        self.drivers[usize::from(queue)].seen = seen.wrapping_add(1);
        let element = self.read(used + 4 + u64::from(seen % QUEUE_SIZE) * 8, 8);
        let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
        Some((word(0) as u16, word(4)))
    }

    /// The response of the next completed request of the control queue.
    fn response(&mut self) -> Option<Vec<u8>> {
        let (head, len) = self.completed(CONTROL_QUEUE)?;
        let heap = self.drivers[0].heap(head / 2);
        Some(self.read(heap + 0x200, len as usize))
    }

    fn kind(&mut self) -> Option<u32> {
        let response = self.response()?;
        Some(u32::from_le_bytes(response[..4].try_into().unwrap()))
    }

    #[track_caller]
    fn control(&mut self, command: u32, words: &[u32]) -> u32 {
        self.submit(CONTROL_QUEUE, &request(command, words), 24);
        self.event(CONTROL_QUEUE);
        self.run();
        self.kind().expect("a response")
    }

    /// Resource 1, 16 by 16 pixels, on scanout 0, flushed.
    #[track_caller]
    fn show(&mut self) {
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

    fn plug_display(&mut self) -> FrontEnd {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        self.gpu.adopt(ours);
        self.run();
        FrontEnd(socket)
    }

    fn plug_settled_display(&mut self) -> FrontEnd {
        let mut front_end = self.plug_display();
        assert_eq!(front_end.messages(), [FEATURES]);
        front_end.reply(FEATURES, &0_u64.to_ne_bytes());
        self.run();
        front_end
    }

    fn watches_display(&self) -> usize {
        let watched = self.program.0.watched.lock().unwrap();
        watched.values().filter(|token| **token == DISPLAY).count()
    }
}

struct FrontEnd(UnixStream);

impl FrontEnd {
    /// What kinds of messages arrived.
    fn messages(&mut self) -> Vec<u32> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while let Some((header, payload)) = rest.split_at_checked(12) {
            let word = |i: usize| u32::from_ne_bytes(header[i * 4..][..4].try_into().unwrap());
            kinds.push(word(0));
            rest = payload.get(word(2) as usize..).expect("whole messages");
        }
        kinds
    }

    fn reply(&mut self, kind: u32, payload: &[u8]) {
        let words = [kind, 4, payload.len() as u32];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend(payload);
        self.0.write_all(&bytes).unwrap();
    }
}

fn request(command: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = command.to_le_bytes().to_vec();
    bytes.resize(HEADER_LEN, 0);
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    bytes
}

const CREATE: u32 = command::RESOURCE_CREATE_2D;

#[test]
fn without_a_display_everything_is_answered() {
    let mut machine = Machine::started();
    machine.show();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[2, 2, 1, 1]), 24);
    machine.event(CONTROL_QUEUE);
    let response = machine.response().unwrap();
    assert_eq!(
        Modes::read(&response[HEADER_LEN..]).unwrap(),
        Modes::default()
    );
    assert_eq!(machine.kind(), Some(response::OK_NODATA));
    assert_eq!(machine.response(), None);
}

#[test]
fn the_control_queue_waits_for_the_display_and_the_cursor_queue_does_not() {
    let mut machine = Machine::started();
    let mut front_end = machine.plug_settled_display();
    front_end.messages();
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(front_end.messages(), [DISPLAY_INFO]);
    assert_eq!(machine.kind(), Some(response::OK_NODATA));
    assert_eq!(machine.response(), None);

    let hide = request(command::MOVE_CURSOR, &[0, 1, 1, 0, 0, 0, 0, 0]);
    machine.submit(CURSOR_QUEUE, &hide, 0);
    machine.event(CURSOR_QUEUE);
    assert_eq!(machine.completed(CURSOR_QUEUE), Some((0, 0)));
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(machine.response(), None);

    let modes = Modes::default();
    let reply = Response::DisplayInfo(Box::new(modes)).to_bytes(&Header::default());
    front_end.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert_eq!(machine.kind(), Some(response::ERR_INVALID_RESOURCE_ID));
}

#[test]
fn a_display_that_goes_or_says_nothing_does_not_hold_the_guest() {
    let info = request(command::GET_DISPLAY_INFO, &[]);
    let mut machine = Machine::started();
    let front_end = machine.plug_settled_display();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(machine.response(), None);
    assert_eq!(machine.watches_display(), 1);
    drop(front_end);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert_eq!(machine.watches_display(), 0);

    let _silent = machine.plug_display();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(machine.response(), None);
    let began = Instant::now();
    machine.run_for(10_000);
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert!(began.elapsed() >= Duration::from_millis(2900));
}

#[test]
fn a_guest_that_is_paused_keeps_what_it_set_up() {
    let mut machine = Machine::started();
    let mut old = machine.plug_settled_display();
    machine.show();
    assert_eq!(old.messages()[1..], [SCANOUT, UPDATE]);
    for _ in 0..3 {
        drop(old);
        machine.run();
        machine.stop();
        let mut new = machine.plug_settled_display();
        // Whose driver it is shows only once the rings start.
        assert_eq!(new.messages().len(), 1);
        machine.start(machine.drivers[0].submitted);
        assert_eq!(new.messages(), [SCANOUT, UPDATE]);
        let flush = machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
        assert_eq!(flush, response::OK_NODATA);
        old = new;
    }
}

#[test]
fn a_new_driver_finds_nothing_of_the_old_one() {
    let mut machine = Machine::started();
    machine.show();
    machine.stop();
    let mut front_end = machine.plug_settled_display();
    machine.start(0);
    assert_eq!(front_end.messages().len(), 1);
    machine.show();
    assert_eq!(front_end.messages(), [SCANOUT, UPDATE]);
}

#[test]
fn indices_that_wrapped_around_are_told_apart() {
    for (reads_config, expected) in [
        (false, response::ERR_INVALID_RESOURCE_ID),
        (true, response::OK_NODATA),
    ] {
        let mut machine = Machine::started();
        machine.show();
        machine.gpu.get_config(0, 16);
        // As if 65536 requests had been made since.
        machine.vrings[0].set_queue_next_avail(0);
        machine.drivers[0].submitted = 0;
        machine.write(machine.drivers[0].avail() + 2, &[0; 2]);
        machine.event(CONTROL_QUEUE);
        machine.stop();
        if reads_config {
            machine.gpu.get_config(8, 4);
        }
        machine.start(0);
        assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), expected);
    }
}

#[test]
fn a_question_in_the_air_survives_a_pause() {
    let mut machine = Machine::started();
    assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), response::OK_NODATA);
    let _old = machine.plug_settled_display();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    machine.stop();
    assert_eq!(machine.vrings[0].queue_next_avail(), 1);
    machine.run();
    assert_eq!(machine.response(), None);

    // The rings go on at the request that was not answered.
    for vring in &machine.vrings {
        vring.set_queue_ready(true);
    }
    machine.event(CONTROL_QUEUE);
    drop(machine.plug_display());
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    let known = machine.control(CREATE, &[1, 2, 1, 1]);
    assert_eq!(known, response::ERR_INVALID_RESOURCE_ID);
}

#[test]
fn rings_that_stopped_are_not_touched() {
    let mut machine = Machine::started();
    assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), response::OK_NODATA);
    machine.stop();
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[2, 2, 1, 1]), 24);
    for token in [CONTROL_QUEUE, CURSOR_QUEUE, DISPLAY, TIMER, WAKE, 0x7fff] {
        machine.event(token);
    }
    machine.run();
    assert_eq!(machine.response(), None);
}

#[test]
fn a_reset_drops_everything() {
    let mut machine = Machine::started();
    machine.show();
    machine.gpu.reset_device();
    machine.show();
}

#[test]
fn a_full_control_queue_leaves_the_others_their_turn() {
    let mut machine = Machine::started();
    for _ in 0..100 {
        machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    }
    machine.event(CONTROL_QUEUE);
    let count = |machine: &mut Machine| std::iter::from_fn(|| machine.response()).count();
    assert_eq!(count(&mut machine), PASS_REQUESTS);
    machine.run();
    assert_eq!(count(&mut machine), 100 - PASS_REQUESTS);
}

#[test]
fn a_request_may_be_split_anywhere() {
    let whole = request(CREATE, &[1, 2, 1, 1]);
    for at in 1..whole.len() {
        let mut machine = Machine::started();
        let heap = machine.drivers[0].heap(0);
        machine.write(heap, &whole);
        let rest = (whole.len() - at) as u32;
        machine.descriptor(0, 0, (heap, at as u32), NEXT, 1);
        machine.descriptor(0, 1, (heap + at as u64, rest), NEXT, 2);
        // The response's room as well.
        machine.descriptor(0, 2, (heap + 0x200, 7), NEXT | WRITE, 3);
        machine.descriptor(0, 3, (heap + 0x207, 17), WRITE, 0);
        machine.publish(CONTROL_QUEUE, 0);
        machine.event(CONTROL_QUEUE);
        assert_eq!(machine.kind(), Some(response::OK_NODATA), "{at}");
    }
}

#[test]
fn too_little_room_for_a_response_is_no_harm() {
    let info = request(command::GET_DISPLAY_INFO, &[]);
    for (room, len) in [(0, 0), (23, 0), (24, 24), (407, 24), (408, 408), (500, 408)] {
        let mut machine = Machine::started();
        machine.submit(CONTROL_QUEUE, &info, room);
        machine.event(CONTROL_QUEUE);
        assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, len)), "{room}");
        let kind = machine.read(machine.drivers[0].heap(0) + 0x200, 4);
        let expected = match len {
            0 => 0,
            24 => response::ERR_UNSPEC,
            _ => response::OK_DISPLAY_INFO,
        };
        assert_eq!(kind, expected.to_le_bytes());
    }
}

#[test]
fn descriptors_outside_the_memory_are_no_harm() {
    let outside = MEMORY as u64 - 8;
    let cases = [
        ((outside, 40), (0x1000, 24), 24),
        ((u64::MAX - 3, 40), (0x1000, 24), 24),
        ((0x1000, 0x8000_0000), (0x2000, 24), 24),
        // Longer than a chain may be in all (virtio 1.2, 2.7.5.2).
        ((0x1000, u32::MAX), (0x2000, 24), 0),
        ((0x1000, 40), (outside, 24), 0),
        ((0x1000, 0), (0x2000, 24), 24),
    ];
    for (readable, writable, len) in cases {
        let mut machine = Machine::started();
        machine.descriptor(0, 0, readable, NEXT, 1);
        machine.descriptor(0, 1, writable, WRITE, 0);
        machine.publish(CONTROL_QUEUE, 0);
        machine.event(CONTROL_QUEUE);
        machine.run();
        assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, len)));
    }
    // A chain that loops, one that leaves the table, and a head that is none.
    let mut machine = Machine::started();
    machine.descriptor(0, 0, (0x1000, 1), NEXT, 0);
    machine.descriptor(0, 1, (0x1000, 1), NEXT, 60000);
    for head in [0, 1, 60000] {
        machine.publish(CONTROL_QUEUE, head);
        machine.event(CONTROL_QUEUE);
        machine.run();
    }
    assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, 0)));
}

#[test]
fn nonsense_is_answered_with_errors() {
    let mut machine = Machine::started();
    let mut front_end = machine.plug_settled_display();
    let mut seed: u64 = 1;
    let mut random = move || {
        // Knuth's multiplier; which numbers come does not matter, that they repeat does.
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
        (seed >> 33) as u32
    };
    let commands = [
        CREATE,
        command::RESOURCE_UNREF,
        command::SET_SCANOUT,
        command::RESOURCE_FLUSH,
        command::TRANSFER_TO_HOST_2D,
        command::RESOURCE_ATTACH_BACKING,
        command::RESOURCE_DETACH_BACKING,
        command::RESOURCE_ASSIGN_UUID,
        command::UPDATE_CURSOR,
        command::MOVE_CURSOR,
    ];
    for _ in 0..20_000 {
        let command = commands[random() as usize % commands.len()];
        let words: Vec<u32> = (0..random() % 20)
            .map(|_| match random() % 8 {
                0 => random(),
                1 => u32::MAX,
                2 => 64,
                other => random() % (other * 4),
            })
            .collect();
        let queue = (random() % 2) as u16;
        machine.submit(queue, &request(command, &words), random() % 60);
        machine.event(queue);
        machine.run();
        assert!(machine.completed(queue).is_some());
        front_end.messages();
    }
}

#[test]
fn the_status_tells_what_is_shown() {
    let mut machine = Machine::started();
    machine.show();
    machine.control(command::SET_SCANOUT, &[0, 0, 8, 4, 1, 1]);
    machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
    machine.control(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(
        *machine.program.0.status.lock().unwrap(),
        [
            "vm connected, 16x16",
            "vm connected, 16x16 + 8x4",
            "vm connected"
        ]
    );
}

#[test]
fn the_configuration_can_be_read_in_parts() {
    let mut gpu = Gpu::new(Options::default());
    let whole = gpu.get_config(0, 16);
    assert_eq!(whole[8..12], 16_u32.to_le_bytes());
    assert_eq!(gpu.get_config(9, 3), whole[9..12]);
    assert_eq!(gpu.get_config(0, 20).len(), 20);
    assert_eq!(gpu.get_config(u32::MAX, u32::MAX), []);
    gpu.set_config(0, &whole).unwrap();
    gpu.set_config(4, &[1, 0, 0, 0]).unwrap();
    assert!(gpu.set_config(u32::MAX, &[0; 4]).is_err());
}

#[test]
fn the_program_hands_over_the_socket() {
    let mut machine = Machine::started();
    let (socket, ours) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    *machine.program.0.socket.lock().unwrap() = Some(ours);
    let (_peer, blocking) = UnixStream::pair().unwrap();
    let blocking = || GpuBackend::from_stream(blocking.try_clone().unwrap());
    machine.gpu.set_gpu_socket(blocking()).unwrap();
    assert_eq!(FrontEnd(socket).messages(), [FEATURES]);
    assert!(machine.gpu.set_gpu_socket(blocking()).is_err());
}
