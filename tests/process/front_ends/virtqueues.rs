// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changes that a front-end may make to a running virtqueue, and the errors it is told.

use super::*;
use frontend::features::{ACCESS_PLATFORM, RING_PACKED};

/// A front-end may set the kick of a ring that runs. The new one is listened to, and the old one
/// neither keeps the worker busy nor ends it.
#[test]
fn second_kick_on_a_running_ring_replaces_the_first() {
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
fn second_kick_leaves_a_keyboard_with_its_guest() {
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
    // What the proxy does for a ring that starts has had its turn.
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
fn virtqueue_without_a_kick_is_refused_with_a_message() {
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
fn unoffered_features_are_named_with_their_option() {
    let keyboard = HostDevice::new(KEYBOARD);
    let gpu = gpu_command(SocketForm::Connected(7));
    let input = keyboard.command(input_program());
    let input = input.socket(SocketForm::Connected(7));
    for (command, feature, words) in [
        (gpu, RING_PACKED, ["VIRTIO_F_RING_PACKED", "packed=on"]),
        (
            input,
            ACCESS_PLATFORM,
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
fn broken_ring_is_reported_to_the_front_end() {
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
    while keyboard.input.next_report().unwrap()[0] != key {}
    keyboard.finish();
}
