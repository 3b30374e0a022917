// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console of a guest, whichever VMM runs it: those without a display of their own too.

use std::os::unix::net::UnixListener;

use harness::image::Image;
use harness::viewers::RfbViewer;

use super::*;
use frontend::Command;

const SIZE: (u32, u32) = (64, 48);
const VNC_FD: u8 = 3;
/// Code and keysym of a key.
const KEY_A: (u16, u32) = (30, 0x61);

#[test]
fn every_vmm_has_a_console() {
    let expected = Image {
        width: SIZE.0,
        height: SIZE.1,
        pixels: (0..SIZE.1)
            .flat_map(|y| (0..SIZE.0).map(move |x| pattern(x, y)))
            .map(|[red, green, blue]| u32::from_be_bytes([0, red, green, blue]))
            .collect(),
    };
    for vmm in ALL {
        eprintln!("{vmm:?}");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let gpu = gpu_command(SocketForm::Connected(7))
            .arg(format!("--display-socket={}", path("display")))
            .spawn()
            .unwrap();
        let mut keyboard = Command::new(input_program())
            .arg("--virtual=keyboard")
            .arg(format!("--events-socket={}", path("keyboard")))
            .socket(SocketForm::Connected(5))
            .spawn()
            .unwrap();
        let (mut vm, mut socket) = connect_gpu_of(vmm, gpu);
        let (mut input, memory) = connect_keyboard(vmm, &mut keyboard);

        let listener = UnixListener::bind(path("vnc")).unwrap();
        let server = Command::new(vnc_program())
            .arg(format!("--fd={VNC_FD}"))
            .arg(format!("--display={}", path("display")))
            .arg(format!("--keyboard={}", path("keyboard")))
            .pass(VNC_FD, listener)
            .spawn()
            .unwrap();
        // Before the guest has drawn anything, and then over its reset.
        let mut viewer = RfbViewer::connect(path("vnc").as_ref(), DEFAULT_LIMIT).unwrap();
        for again in [false, true] {
            if again {
                vmm.reset(&mut vm.gpu.session, 2).unwrap();
                (vm.display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
                vm.gpu.control.reset().unwrap();
                vm.gpu.cursor.reset().unwrap();
                vmm.reset(&mut input.session, 2).unwrap();
                input.begin_anew().unwrap();
            }
            gpu_serves_a_driver(vmm, &mut vm, &socket, again);
            let seen = viewer.wait_picture(&expected);
            seen.unwrap_or_else(|error| panic!("{error:#}: {}", server.stderr()));

            let how = (&memory, input.features());
            let queues = [&input.events, &input.status];
            vmm.start(&mut input.session, how, &queues, again).unwrap();
            input.give(vmm.queue_size()).unwrap();
            for value in [1, 0] {
                viewer.client().key(KEY_A.1, value == 1).unwrap();
                let key = Event::new(EV_KEY, KEY_A.0, value);
                // After the state in which the device is at its start.
                while input.next_report().unwrap() != [key, Event::report()] {}
            }
        }
        drop(socket);
        vm.finish_within(DEFAULT_LIMIT);
        drop(input);
        assert_clean_exit_within(&mut keyboard, DEFAULT_LIMIT);
    }
}

fn connect_keyboard(vmm: FrontEnd, program: &mut Program) -> (Input, Memory) {
    let mut session = program.session().unwrap();
    let memory = guest_memory();
    let offer = vmm.connect(&mut session, 2).unwrap();
    let options = InputOptions {
        features: RING_FEATURES,
        queue_size: vmm.queue_size(),
        ..InputOptions::default()
    };
    let input = Input::on(session, offer, &memory, options).unwrap();
    (input, memory)
}
