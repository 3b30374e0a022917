// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end of a program: signals in every state, and front-ends that disconnect.

use super::*;

#[test]
fn signals_end_the_program_while_it_waits() {
    for form in FORMS {
        for signal in [Signal::TERM, Signal::INT] {
            let mut program = gpu_command(form).notify().spawn().unwrap();
            program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
            program.signal(signal).unwrap();
            assert_clean_exit(&mut program);
            if form == SocketForm::Path {
                assert!(!program.socket_path().exists(), "the socket stays behind");
            }
        }
    }
}

#[test]
fn signals_end_the_program_while_connected() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Path).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        program.signal(signal).unwrap();
        assert_clean_exit(&mut program);
        session.channel.wait_closed().unwrap();
        assert!(!program.socket_path().exists(), "the socket stays behind");
    }
}

/// A front-end that stops in the middle of a message.
#[test]
fn signals_end_the_program_in_the_middle_of_a_message() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Connected(3)).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        let half = [2, 0, 0, 0, 1, 0];
        session.channel.send_bytes(&half, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        program.signal(signal).unwrap();
        assert_clean_exit(&mut program);
    }
}

/// A front-end that sends faster than it is served.
#[test]
fn signals_end_the_program_while_the_front_end_floods_it() {
    // SET_OWNER and RESET_OWNER: nothing to wait for, nothing to do.
    let messages = [
        [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    let flood = messages.concat().repeat(100);
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = gpu_command(SocketForm::Connected(3)).spawn().unwrap();
        let mut session = program.session().unwrap();
        // It runs, and not only its loader, whom a signal ends as it likes.
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| while session.channel.send_bytes(&flood, &[]).is_ok() {});
            std::thread::sleep(Duration::from_millis(200));
            program.signal(signal).unwrap();
            assert_clean_exit(&mut program);
        });
    }
}

#[test]
fn signals_end_the_program_while_rings_run() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut vm = GpuVm::start();
        vm.painted(1, XRGB, (64, 64));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn signals_end_the_program_while_the_display_does_not_read() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut vm = stuck();
        let size = Rect::sized(512, 512);
        ok(vm.gpu.create_2d(1, XRGB, 512, 512));
        ok(vm.gpu.set_scanout(0, 1, size));
        let flush = virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        for _ in 0..8 {
            vm.gpu.push(flush, &[0, 0, 512, 512, 1, 0]).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn signals_end_the_program_while_the_display_does_not_answer() {
    for signal in [Signal::TERM, Signal::INT] {
        let program = gpu_command(SocketForm::Connected(8)).spawn().unwrap();
        let display = DisplayThread::start_stuck(DisplayOptions::default()).unwrap();
        let mut vm = GpuVm::of(program, display, GpuOptions::default());
        let info =
            virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
        let request = vm.gpu.request(info, &[]);
        vm.gpu.control.push(&request, 1024).unwrap();
        vm.gpu.control.queue.submit().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn program_ends_when_the_front_end_disconnects() {
    // At once, negotiated, with rings that run, in the middle of a message.
    for form in FORMS {
        let mut program = gpu_command(form).spawn().unwrap();
        drop(program.connect().unwrap());
        assert_clean_exit(&mut program);

        let mut program = gpu_command(form).spawn().unwrap();
        let mut session = program.session().unwrap();
        session
            .negotiate(Session::usual_protocol_features())
            .unwrap();
        drop(session);
        assert_clean_exit(&mut program);

        let mut program = gpu_command(form).spawn().unwrap();
        let session = program.session().unwrap();
        session.channel.send_bytes(&[1, 0, 0, 0, 1], &[]).unwrap();
        drop(session);
        assert_clean_exit(&mut program);
    }
    GpuVm::start().finish();
}

#[test]
fn program_ends_when_the_front_end_leaves_a_stuck_display_behind() {
    let GpuVm {
        mut gpu,
        display,
        mut program,
    } = stuck();
    ok(gpu.create_2d(1, XRGB, 512, 512));
    ok(gpu.set_scanout(0, 1, Rect::sized(512, 512)));
    let flush = virtio_bindings::virtio_gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    gpu.push(flush, &[0, 0, 512, 512, 1, 0]).unwrap();
    gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(gpu);
    assert_clean_exit(&mut program);
    drop(display);
}
