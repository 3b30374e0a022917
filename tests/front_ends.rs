//! How each VMM with vhost-user devices sets a device up, resets it and sets it up again, as its
//! source has it (2026), played to the programs; and what a front-end may do to a running virtqueue.

mod common;
#[path = "common/evdev.rs"]
mod evdev;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use common::*;
use evdev::HostDevice;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request};
use frontend::input::{CONFIG_SIZE, Event, Input, InputOptions};
use frontend::{
    Buffer, DEFAULT_LIMIT, Deadline, FrontendReq, Memory, Offer, Program, Queue, Region, Session,
    SocketForm, VhostUserProtocolFeatures as Protocol,
};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

const KEYBOARD: &str =
    "name Test Keyboard\nid 0003 046d c31c 0110\nkey 1-88\nmsc 4\nled 0-2\nrep\n";
const EV_KEY: u16 = 1;
const EV_LED: u16 = 17;
const XRGB: Format = Format::B8G8R8X8;
const QUEUES: [u32; 2] = [0, 1];
/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX.
const RING_FEATURES: u64 = 1 << 28 | 1 << 29;
const RING_PACKED: u64 = 1 << 34;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrontEnd {
    Qemu7,
    /// And 11.
    Qemu10,
    Libkrun,
    CloudHypervisor,
    OpenVmm,
    Crosvm,
}

const ALL: [FrontEnd; 6] = [
    FrontEnd::Qemu7,
    FrontEnd::Qemu10,
    FrontEnd::Libkrun,
    FrontEnd::CloudHypervisor,
    FrontEnd::OpenVmm,
    FrontEnd::Crosvm,
];

/// Those that pause a guest: libkrun does not.
fn pausing() -> impl Iterator<Item = FrontEnd> {
    ALL.into_iter().filter(|vmm| *vmm != FrontEnd::Libkrun)
}

impl FrontEnd {
    /// Entries of its queues.
    fn queue_size(self) -> u16 {
        match self {
            Self::Qemu7 => 64,
            Self::Qemu10 => 4,
            Self::Libkrun => 1024,
            Self::CloudHypervisor | Self::OpenVmm => 256,
            Self::Crosvm => 32768,
        }
    }

    fn is_qemu(self) -> bool {
        matches!(self, Self::Qemu7 | Self::Qemu10)
    }

    /// Whether it has a display for the GPU.
    fn has_display(self) -> bool {
        self.is_qemu() || self == Self::Libkrun
    }

    fn protocol_features(self) -> Protocol {
        let more = match self {
            Self::Qemu7 | Self::Qemu10 => {
                Protocol::all() - Protocol::XEN_MMAP - Protocol::DEVICE_STATE
            }
            Self::Libkrun => Protocol::empty(),
            Self::CloudHypervisor => {
                Protocol::CONFIGURE_MEM_SLOTS
                    | Protocol::REPLY_ACK
                    | Protocol::INFLIGHT_SHMFD
                    | Protocol::LOG_SHMFD
                    | Protocol::DEVICE_STATE
                    | Protocol::BACKEND_REQ
            }
            Self::OpenVmm => Protocol::REPLY_ACK | Protocol::RESET_DEVICE,
            Self::Crosvm => {
                Protocol::BACKEND_REQ
                    | Protocol::DEVICE_STATE
                    | Protocol::SHMEM
                    | Protocol::REPLY_ACK
            }
        };
        more | Protocol::CONFIG | Protocol::MQ
    }

    /// What it asks before a driver is there.
    fn connect(self, session: &mut Session) -> Offer {
        session.acknowledge = matches!(self, Self::CloudHypervisor | Self::OpenVmm);
        let owner_first = matches!(self, Self::CloudHypervisor | Self::Crosvm);
        if owner_first {
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
        }
        let features = session.get_u64(FrontendReq::GET_FEATURES).unwrap();
        let bits = session.get_u64(FrontendReq::GET_PROTOCOL_FEATURES).unwrap();
        let offered = Protocol::from_bits_truncate(bits);
        let taken = offered & self.protocol_features();
        session.set_protocol_features(taken).unwrap();
        if self == Self::OpenVmm {
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
        }
        let queues = session.get_u64(FrontendReq::GET_QUEUE_NUM).unwrap();
        if self.is_qemu() {
            assert!(taken.contains(Protocol::CONFIGURE_MEM_SLOTS));
            let slots = session.get_u64(FrontendReq::GET_MAX_MEM_SLOTS).unwrap();
            assert!(slots >= 509, "{slots} slots");
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
            session.get_u64(FrontendReq::GET_FEATURES).unwrap();
            for queue in QUEUES {
                for request in [FrontendReq::SET_VRING_CALL, FrontendReq::SET_VRING_ERR] {
                    let event = event();
                    let fd = Some(event.as_fd());
                    session.set_vring_fd(request, queue, fd).unwrap();
                }
            }
        }
        Offer {
            features,
            protocol_features: offered,
            queues,
        }
    }

    /// The name of an input device, as its guest's driver reads it.
    fn device_name(self, session: &mut Session) -> String {
        let name = match self {
            Self::Qemu7 | Self::Qemu10 => {
                let mut config = vec![0; CONFIG_SIZE as usize];
                config[0] = 1;
                session.set_config(0, &config).unwrap();
                let config = session.config(0, CONFIG_SIZE).unwrap();
                config[8..][..config[2].into()].to_vec()
            }
            Self::OpenVmm => {
                // A driver's byte is read, changed and written as a word.
                for (byte, value) in [(0, 1), (1, 0)] {
                    let mut word = session.config(0, 4).unwrap();
                    word[byte] = value;
                    session.set_config(0, &word).unwrap();
                }
                let size = session.config(0, 4).unwrap()[2];
                let words = (0..u32::from(size).div_ceil(4)).map(|word| 8 + 4 * word);
                let mut name: Vec<u8> = words
                    .flat_map(|offset| session.config(offset, 4).unwrap())
                    .collect();
                name.truncate(size.into());
                name
            }
            Self::Libkrun | Self::CloudHypervisor | Self::Crosvm => {
                let written = u32::from(self == Self::CloudHypervisor);
                let read = u32::from(self == Self::Crosvm);
                for (offset, byte) in [(0, 1), (1, 0)] {
                    session.set_config_with(offset, &[byte], written).unwrap();
                }
                let size = session.config_with(2, 1, read).unwrap()[0];
                let bytes = (8..).take(size.into());
                bytes
                    .map(|offset| session.config_with(offset, 1, read).unwrap()[0])
                    .collect()
            }
        };
        String::from_utf8(name).unwrap()
    }

    /// Where it has the guest's memory.
    fn user_address(self, memory: &Memory, guest: u64) -> u64 {
        match self {
            Self::OpenVmm => guest + (1 << 52),
            _ => memory.user_address(guest),
        }
    }

    /// Starts the rings for a driver; `again` if it did so before.
    fn start(
        self,
        session: &mut Session,
        (memory, features): (&Memory, u64),
        queues: [&Queue; 2],
        again: bool,
    ) {
        let regions = memory.regions().into_iter().map(|region| Region {
            user_address: self.user_address(memory, region.guest_address),
            ..region
        });
        let regions: Vec<_> = regions.collect();
        let features = features | PROTOCOL_FEATURES;
        match self {
            Self::Qemu7 | Self::Qemu10 => {
                session.set_features(features).unwrap();
                if !again {
                    session.acknowledge = true;
                    for region in &regions {
                        session.add_region(region).unwrap();
                    }
                    session.acknowledge = false;
                }
            }
            Self::Libkrun => {
                session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
                session.set_regions(&regions).unwrap();
                session.set_features(features).unwrap();
            }
            Self::OpenVmm => {
                if !again {
                    session.set_regions(&regions).unwrap();
                }
                session.set_features(features).unwrap();
            }
            Self::CloudHypervisor => {
                session.set_features(features).unwrap();
                session.set_regions(&regions).unwrap();
            }
            Self::Crosvm => {
                if !again {
                    session.set_features(features).unwrap();
                }
                session.set_regions(&regions).unwrap();
            }
        }
        let vrings = || QUEUES.into_iter().zip(queues);
        if self == Self::CloudHypervisor {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Num]);
            }
        }
        let steps = match self {
            Self::Qemu7 | Self::Qemu10 => {
                &[Step::Num, Step::Base, Step::Addr, Step::Kick, Step::Call][..]
            }
            Self::Libkrun => &[
                Step::Num,
                Step::Base,
                Step::Addr,
                Step::Kick,
                Step::Call,
                Step::Enable,
            ],
            Self::CloudHypervisor => &[Step::Addr, Step::Base, Step::Call, Step::Kick],
            Self::OpenVmm => &[
                Step::Num,
                Step::Addr,
                Step::Base,
                Step::Kick,
                Step::Call,
                Step::Enable,
            ],
            Self::Crosvm => &[
                Step::Num,
                Step::Addr,
                Step::Base,
                Step::Call,
                Step::Kick,
                Step::Enable,
            ],
        };
        for (index, queue) in vrings() {
            self.place(session, memory, index, queue, steps);
        }
        if !steps.contains(&Step::Enable) {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Enable]);
            }
        }
    }

    fn place(
        self,
        session: &mut Session,
        memory: &Memory,
        index: u32,
        queue: &Queue,
        steps: &[Step],
    ) {
        for step in steps {
            match step {
                Step::Num => {
                    let size = queue.size().into();
                    session.set_vring_state(FrontendReq::SET_VRING_NUM, index, size)
                }
                Step::Base => {
                    // All that the device took is used.
                    let base = queue.used_index().unwrap().into();
                    session.set_vring_state(FrontendReq::SET_VRING_BASE, index, base)
                }
                Step::Addr => {
                    let places = queue.addresses();
                    let [table, available, used] = places.map(|at| self.user_address(memory, at));
                    session.set_vring_addresses(index, table, available, used)
                }
                Step::Kick => {
                    let kick = Some(queue.kick_fd());
                    session.set_vring_fd(FrontendReq::SET_VRING_KICK, index, kick)
                }
                Step::Call => {
                    let call = Some(queue.call_fd());
                    session.set_vring_fd(FrontendReq::SET_VRING_CALL, index, call)
                }
                Step::Enable => session.enable_queue(index, true),
            }
            .unwrap();
        }
    }

    /// Stops the rings: the guest is paused, or its driver goes.
    fn pause(self, session: &mut Session) {
        for queue in QUEUES {
            session.enable_queue(queue, false).unwrap();
            if !self.is_qemu() && self != Self::Libkrun {
                session.stop_queue(queue).unwrap();
            }
        }
        if self.is_qemu() {
            for queue in QUEUES {
                session.stop_queue(queue).unwrap();
            }
        }
    }

    /// The guest resets the device.
    fn reset(self, session: &mut Session) {
        self.pause(session);
        if matches!(self, Self::Qemu10 | Self::OpenVmm) {
            let request = FrontendReq::RESET_DEVICE;
            session.request(request, &[], &[]).unwrap();
        }
    }
}

/// A message about a ring that starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Num,
    Base,
    Addr,
    Kick,
    Call,
    Enable,
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Waits until `event` is signalled.
fn wait_event(event: &OwnedFd) {
    let ready = Deadline::after(DEFAULT_LIMIT).ready(event.as_fd(), PollFlags::IN);
    assert!(ready.unwrap(), "no signal");
}

/// A host's keyboard, the program that gives it away, and a guest.
struct Keyboard {
    input: Input,
    memory: Memory,
    device: HostDevice,
    program: Program,
}

impl Keyboard {
    fn connect(vmm: FrontEnd) -> Self {
        let mut device = HostDevice::new(KEYBOARD);
        let command = device.command(input_program());
        let mut program = command.socket(SocketForm::Connected(5)).spawn().unwrap();
        let mut session = program.session().unwrap();
        let memory = guest_memory();
        let offer = vmm.connect(&mut session);
        assert_eq!(vmm.device_name(&mut session), "Test Keyboard", "{vmm:?}");
        let options = InputOptions {
            features: RING_FEATURES,
            queue_size: vmm.queue_size(),
            ..InputOptions::default()
        };
        let input = Input::on(session, offer, &memory, options).unwrap();
        // The program tries it at its start.
        device.forget();
        Self {
            input,
            memory,
            device,
            program,
        }
    }

    fn start(&mut self, vmm: FrontEnd, again: bool) {
        let how = (&self.memory, self.input.features());
        let queues = [&self.input.events, &self.input.status];
        vmm.start(&mut self.input.session, how, queues, again);
    }

    /// A driver begins, and its guest gets the keys and sets an LED.
    fn serves_a_driver(&mut self, vmm: FrontEnd, again: bool) {
        self.start(vmm, again);
        self.input.give(vmm.queue_size()).unwrap();
        self.serves();
    }

    fn serves(&mut self) {
        self.device.wait_grab(true);
        while self.input.next_event(Duration::from_millis(100)).is_ok() {}
        for value in [1, 0] {
            let key = Event::new(EV_KEY, 30, value);
            self.device.send(&[key, Event::report()]);
            assert_eq!(self.input.next_report().unwrap(), [key, Event::report()]);
        }
        let led = [Event::new(EV_LED, 1, 1), Event::report()];
        self.input.send_status(&led).unwrap();
        self.device.wait_led(1, 1);
    }

    fn finish(self) {
        let Self {
            input, mut program, ..
        } = self;
        drop(input);
        assert_clean_exit_within(&mut program, DEFAULT_LIMIT);
    }
}

#[test]
fn every_vmm_gets_an_input_device_and_a_reset_gives_it_back() {
    for vmm in ALL {
        eprintln!("{vmm:?}");
        let mut keyboard = Keyboard::connect(vmm);
        keyboard.serves_a_driver(vmm, false);
        vmm.reset(&mut keyboard.input.session);
        // What the guest lit is the host's again, too.
        keyboard.device.wait_led(1, 0);
        keyboard.device.wait_grab(false);
        keyboard.input.begin_anew().unwrap();
        keyboard.serves_a_driver(vmm, true);
        keyboard.finish();
    }
}

/// A pause is no reset: the driver goes on where it was, with the LEDs that it set.
#[test]
fn a_paused_guest_goes_on_with_its_input_device() {
    for vmm in pausing() {
        eprintln!("{vmm:?}");
        let mut keyboard = Keyboard::connect(vmm);
        keyboard.serves_a_driver(vmm, false);
        vmm.pause(&mut keyboard.input.session);
        keyboard.device.wait_grab(false);
        keyboard.device.forget();
        keyboard.start(vmm, true);
        keyboard.device.wait_led(1, 1);
        keyboard.serves();
        keyboard.finish();
    }
}

fn connect_gpu(vmm: FrontEnd) -> (GpuVm, std::os::unix::net::UnixStream) {
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = vmm.connect(&mut session);
    let size = vmm.queue_size().max(16);
    let options = GpuOptions {
        features: RING_FEATURES | u64::from(vmm.has_display()) << 1,
        control_size: size,
        cursor_size: size,
    };
    let gpu = Gpu::on(session, offer, &guest_memory(), options).unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let vm = GpuVm {
        gpu,
        display,
        program,
    };
    (vm, socket)
}

/// A driver begins, and draws.
fn gpu_serves_a_driver(vmm: FrontEnd, vm: &mut GpuVm, display: impl AsFd, again: bool) {
    // The number of scanouts.
    vm.gpu.session.config(8, 4).unwrap();
    if vmm.has_display() {
        vm.gpu.session.set_gpu_socket(display).unwrap();
    }
    let (memory, features) = (vm.gpu.memory().clone(), vm.gpu.features());
    let queues = [&vm.gpu.control.queue, &vm.gpu.cursor.queue];
    vmm.start(&mut vm.gpu.session, (&memory, features), queues, again);
    let size = (64, 48);
    let whole = Rect::sized(size.0, size.1);
    // The one that the driver before had is gone.
    vm.painted(1, XRGB, size);
    ok(vm.gpu.set_scanout(0, 1, whole));
    ok(vm.gpu.flush(1, whole));
    vm.gpu.update_cursor(0, (1, 2), 0, (0, 0)).unwrap();
    if vmm.has_display() {
        vm.display.wait_count(Request::Update, 1).unwrap();
        assert_shows(&vm.display, 0, size, pattern);
    }
}

#[test]
fn every_vmm_gets_a_gpu_and_a_reset_drops_what_was_drawn() {
    for vmm in ALL {
        eprintln!("{vmm:?}");
        let (mut vm, socket) = connect_gpu(vmm);
        gpu_serves_a_driver(vmm, &mut vm, &socket, false);
        vmm.reset(&mut vm.gpu.session);
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        vm.display = display;
        vm.gpu.control.reset().unwrap();
        vm.gpu.cursor.reset().unwrap();
        gpu_serves_a_driver(vmm, &mut vm, &socket, true);
        drop(socket);
        vm.finish_within(DEFAULT_LIMIT);
    }
}

/// What a guest set up in its GPU outlasts a pause.
#[test]
fn a_paused_guest_goes_on_with_its_gpu() {
    for vmm in pausing() {
        eprintln!("{vmm:?}");
        let (mut vm, socket) = connect_gpu(vmm);
        gpu_serves_a_driver(vmm, &mut vm, &socket, false);
        vmm.pause(&mut vm.gpu.session);
        let (memory, features) = (vm.gpu.memory().clone(), vm.gpu.features());
        let queues = [&vm.gpu.control.queue, &vm.gpu.cursor.queue];
        vmm.start(&mut vm.gpu.session, (&memory, features), queues, true);
        ok(vm.gpu.flush(1, Rect::sized(64, 48)));
        ok(vm.gpu.unref(1));
        drop(socket);
        vm.finish_within(DEFAULT_LIMIT);
    }
}

/// Rings that are disabled and enabled again, and nothing else, go on too.
#[test]
fn rings_that_are_only_disabled_go_on_with_what_was_drawn() {
    let mut vm = GpuVm::start();
    vm.painted(1, XRGB, (64, 48));
    for enabled in [false, true] {
        for queue in QUEUES {
            vm.gpu.session.enable_queue(queue, enabled).unwrap();
        }
    }
    ok(vm.gpu.set_scanout(0, 1, Rect::sized(64, 48)));
    ok(vm.gpu.flush(1, Rect::sized(64, 48)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, (64, 48), pattern);
    vm.finish_within(DEFAULT_LIMIT);
}

/// With the rings still running, as the message allows, and features that are not set again.
#[test]
fn reset_device_stops_running_rings_and_forgets_the_driver() {
    let vmm = FrontEnd::OpenVmm;
    let mut keyboard = Keyboard::connect(vmm);
    keyboard.serves_a_driver(vmm, false);
    let session = &mut keyboard.input.session;
    session
        .request(FrontendReq::RESET_DEVICE, &[], &[])
        .unwrap();
    keyboard.device.wait_grab(false);
    // What the driver selected in the configuration, and how much there is of it.
    assert_eq!(session.config(0, 4).unwrap(), [0; 4]);
    for queue in QUEUES {
        session.enable_queue(queue, false).unwrap();
        session.stop_queue(queue).unwrap();
    }
    keyboard.input.begin_anew().unwrap();
    keyboard.serves_a_driver(vmm, true);
    keyboard.finish();

    let (mut vm, socket) = connect_gpu(vmm);
    gpu_serves_a_driver(vmm, &mut vm, &socket, false);
    let session = &mut vm.gpu.session;
    session
        .request(FrontendReq::RESET_DEVICE, &[], &[])
        .unwrap();
    vm.gpu.control.reset().unwrap();
    vm.gpu.cursor.reset().unwrap();
    gpu_serves_a_driver(vmm, &mut vm, &socket, true);
    drop(socket);
    vm.finish_within(DEFAULT_LIMIT);
}

/// A front-end may set the kick of a ring that runs. The new one is listened to, and the old one
/// neither keeps the worker busy nor ends it.
#[test]
fn a_second_kick_on_a_running_ring_replaces_the_first() {
    let mut vm = GpuVm::start();
    let blocking = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for (round, kick) in (1..).zip([event(), blocking(), event()]) {
        let session = &mut vm.gpu.session;
        let request = FrontendReq::SET_VRING_KICK;
        let fd = Some(kick.as_fd());
        session.set_vring_fd(request, 0, fd).unwrap();
        for id in [10 * round, 10 * round + 1] {
            let create = [id, XRGB as u32, 8, 8];
            vm.gpu.push(0x101, &create).unwrap();
            vm.gpu.control.queue.publish().unwrap();
            rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
            ok(vm.gpu.control.next_response().map(|(_, response)| response));
        }
        let spent = vm.program.cpu_time().unwrap();
        vm.gpu.control.queue.kick().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let spent = vm.program.cpu_time().unwrap() - spent;
        assert!(spent < Duration::from_millis(150), "{spent:?} for nothing");
    }
    // The cursor queue, the other one, was never touched; and both stop and start as ever.
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    vm.finish_within(DEFAULT_LIMIT);
}

#[test]
fn a_second_kick_leaves_a_keyboard_with_its_guest() {
    let vmm = FrontEnd::Qemu7;
    let mut keyboard = Keyboard::connect(vmm);
    keyboard.serves_a_driver(vmm, false);
    let kicks = [event(), event()];
    for (queue, kick) in QUEUES.into_iter().zip(&kicks) {
        let session = &mut keyboard.input.session;
        let request = FrontendReq::SET_VRING_KICK;
        let fd = Some(kick.as_fd());
        session.set_vring_fd(request, queue, fd).unwrap();
    }
    // Lights an LED by the new eventfd alone.
    let led = keyboard.memory.alloc(8, 8).unwrap();
    let bytes = [
        &EV_LED.to_le_bytes()[..],
        &2_u16.to_le_bytes(),
        &1_i32.to_le_bytes(),
    ]
    .concat();
    keyboard.memory.write(led, &bytes).unwrap();
    let status = &mut keyboard.input.status;
    status.add(&[Buffer::readable(led, 8)]).unwrap();
    status.publish().unwrap();
    // What the relay does for a ring that starts has had its turn.
    keyboard.input.session.config(0, 4).unwrap();
    rustix::io::write(&kicks[1], &1_u64.to_ne_bytes()).unwrap();
    keyboard.device.wait_led(2, 1);
    let key = Event::new(EV_KEY, 31, 1);
    let deadline = Deadline::after(DEFAULT_LIMIT);
    // What is typed while the ring has no eventfd may be the host's.
    while !deadline.left().is_zero() {
        keyboard.device.send(&[key, Event::report()]);
        if keyboard.input.next_event(Duration::from_millis(100)).ok() == Some(key) {
            break;
        }
        keyboard
            .device
            .send(&[Event::new(EV_KEY, 31, 0), Event::report()]);
    }
    assert!(!deadline.left().is_zero(), "no key arrives");
    keyboard.finish();
}

#[test]
fn a_virtqueue_without_a_kick_is_refused_in_words() {
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let mut session = program.session().unwrap();
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    session.acknowledge = false;
    let request = FrontendReq::SET_VRING_KICK;
    session.set_vring_fd(request, 1, None).unwrap();
    assert_early_failure(&mut program, &["virtqueue 1", "polled"]);
}

/// QEMU offers the guest what its options say, and passes on what that takes.
#[test]
fn features_that_are_not_offered_are_named_with_their_option() {
    let keyboard = HostDevice::new(KEYBOARD);
    let gpu = gpu_command(SocketForm::Connected(7));
    let input = keyboard.command(input_program());
    let input = input.socket(SocketForm::Connected(7));
    for (command, feature, words) in [
        (gpu, RING_PACKED, ["VIRTIO_F_RING_PACKED", "packed=on"]),
        (
            input,
            1 << 33,
            ["VIRTIO_F_ACCESS_PLATFORM", "iommu_platform=on"],
        ),
    ] {
        let mut program = command.spawn().unwrap();
        let mut session = program.session().unwrap();
        let wanted = Session::usual_protocol_features();
        let offer = session.negotiate(wanted).unwrap();
        session.acknowledge = false;
        session.set_features(offer.features | feature).unwrap();
        assert_early_failure(&mut program, &words);
    }
}

/// The front-end hears of a ring that its driver broke, and of no other.
#[test]
fn a_broken_ring_is_reported_to_the_front_end() {
    let mut vm = GpuVm::start();
    let errors = [event(), event()];
    for (queue, error) in QUEUES.into_iter().zip(&errors) {
        let session = &mut vm.gpu.session;
        let request = FrontendReq::SET_VRING_ERR;
        let fd = Some(error.as_fd());
        session.set_vring_fd(request, queue, fd).unwrap();
    }
    let cursor = &mut vm.gpu.cursor.queue;
    cursor.force_available_index(1000).unwrap();
    cursor.kick().unwrap();
    wait_event(&errors[1]);
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    let quiet = rustix::io::read(&errors[0], &mut [0; 8]);
    assert_eq!(quiet, Err(rustix::io::Errno::AGAIN));
    vm.finish_within(DEFAULT_LIMIT);

    // One that did not ask for errors so far.
    let vmm = FrontEnd::OpenVmm;
    let mut keyboard = Keyboard::connect(vmm);
    keyboard.serves_a_driver(vmm, false);
    // Broken first: the front-end hears of it when it says how.
    let status = &mut keyboard.input.status;
    status.force_available_index(1000).unwrap();
    status.kick().unwrap();
    keyboard.program.wait_stderr("the status queue").unwrap();
    let error = event();
    let session = &mut keyboard.input.session;
    let request = FrontendReq::SET_VRING_ERR;
    session
        .set_vring_fd(request, 1, Some(error.as_fd()))
        .unwrap();
    wait_event(&error);
    let key = Event::new(EV_KEY, 30, 1);
    keyboard.device.send(&[key, Event::report()]);
    assert_eq!(keyboard.input.next_report().unwrap()[0], key);
    keyboard.finish();
}
