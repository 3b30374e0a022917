// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user messages of each VMM, from its source (2026): how it sets a device up, resets it and
//! pauses it. And what a front-end may do to a running virtqueue.

mod console;
mod reconnects;
mod virtqueues;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::common::evdev::{HostDevice, KEYBOARD};
use crate::common::*;
use frontend::features::{EVENT_IDX, INDIRECT_DESC};
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request};
use frontend::input::{Event, Input, InputOptions};
use frontend::vmm::{ALL, FrontEnd, pausing};
use frontend::{
    Buffer, DEFAULT_LIMIT, Deadline, FrontendReq, Memory, Program, Session, SocketForm,
    VhostUserProtocolFeatures as Protocol,
};
use harness::mock::codes::{EV_KEY, EV_LED};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

const XRGB: Format = Format::B8G8R8X8;
const QUEUES: [u32; 2] = [0, 1];
const RING_FEATURES: u64 = INDIRECT_DESC | EVENT_IDX;

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
        Self::connect_by(SocketForm::Connected(5), vmm)
    }

    fn connect_by(socket: SocketForm, vmm: FrontEnd) -> Self {
        let mut device = HostDevice::new(KEYBOARD);
        let command = device.command(input_program());
        let mut program = command.socket(socket).spawn().unwrap();
        let mut session = program.session().unwrap();
        let memory = guest_memory();
        let offer = vmm.connect(&mut session, 2).unwrap();
        assert_eq!(
            vmm.device_name(&mut session).unwrap(),
            "Test Keyboard",
            "{vmm:?}"
        );
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
        vmm.start(&mut self.input.session, how, &queues, again)
            .unwrap();
    }

    /// A driver begins, and its guest gets the keys and sets an LED.
    fn serves_a_driver(&mut self, vmm: FrontEnd, again: bool) {
        self.start(vmm, again);
        self.input.give(vmm.queue_size()).unwrap();
        self.serves();
    }

    fn serves(&mut self) {
        self.device.wait_grab(true);
        // What is typed before may be the host's still.
        while self.input.next_event(Duration::from_millis(100)).is_ok() {}
        for value in [1, 0] {
            let key = Event::new(EV_KEY, 30, value);
            self.device.send(&[key, Event::report()]);
            // After what came of the state in which the device was.
            while self.input.next_report().unwrap() != [key, Event::report()] {}
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
fn every_vmm_gets_an_input_device_and_a_reset_releases_it() {
    for vmm in ALL {
        eprintln!("{vmm:?}");
        let mut keyboard = Keyboard::connect(vmm);
        keyboard.serves_a_driver(vmm, false);
        vmm.reset(&mut keyboard.input.session, 2).unwrap();
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
fn paused_guest_resumes_with_its_input_device() {
    for vmm in pausing() {
        eprintln!("{vmm:?}");
        let mut keyboard = Keyboard::connect(vmm);
        keyboard.serves_a_driver(vmm, false);
        vmm.pause(&mut keyboard.input.session, 2).unwrap();
        keyboard.device.wait_grab(false);
        keyboard.device.forget();
        keyboard.start(vmm, true);
        keyboard.device.wait_led(1, 1);
        keyboard.serves();
        keyboard.finish();
    }
}

fn connect_gpu(vmm: FrontEnd) -> (GpuVm, std::os::unix::net::UnixStream) {
    let program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    connect_gpu_of(vmm, program)
}

fn connect_gpu_of(vmm: FrontEnd, mut program: Program) -> (GpuVm, std::os::unix::net::UnixStream) {
    let mut session = program.session().unwrap();
    let offer = vmm.connect(&mut session, 2).unwrap();
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
    vmm.start(&mut vm.gpu.session, (&memory, features), &queues, again)
        .unwrap();
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
        vmm.reset(&mut vm.gpu.session, 2).unwrap();
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
fn paused_guest_resumes_with_its_gpu() {
    for vmm in pausing() {
        eprintln!("{vmm:?}");
        let (mut vm, socket) = connect_gpu(vmm);
        gpu_serves_a_driver(vmm, &mut vm, &socket, false);
        vmm.pause(&mut vm.gpu.session, 2).unwrap();
        let (memory, features) = (vm.gpu.memory().clone(), vm.gpu.features());
        let queues = [&vm.gpu.control.queue, &vm.gpu.cursor.queue];
        vmm.start(&mut vm.gpu.session, (&memory, features), &queues, true)
            .unwrap();
        ok(vm.gpu.flush(1, Rect::sized(64, 48)));
        ok(vm.gpu.unref(1));
        drop(socket);
        vm.finish_within(DEFAULT_LIMIT);
    }
}

/// QEMU would migrate a VM with a GPU that offers it, and lose what the guest set up there.
#[test]
fn gpu_offers_no_log_of_written_memory() {
    let command = gpu_command(SocketForm::Connected(7));
    let mut program = command.spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = session.negotiate(Protocol::CONFIG | Protocol::MQ).unwrap();
    let offered = offer.protocol_features;
    assert!(offered.contains(Protocol::CONFIG), "{offered:?}");
    assert!(!offered.contains(Protocol::LOG_SHMFD), "{offered:?}");
    drop(session);
    assert_clean_exit_within(&mut program, DEFAULT_LIMIT);
}

/// Rings that are disabled and enabled again, and nothing else, go on too.
#[test]
fn disabled_rings_keep_what_was_drawn() {
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
