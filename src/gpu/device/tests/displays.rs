// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles beside the VMM's display.

use std::io::{Read, Write as _};

use super::*;
use crate::gpu::device::tokens::CONSOLES;
use crate::gpu::protocol::MAX_SCANOUTS;

/// `VHOST_USER_GPU_CURSOR_UPDATE`.
const CURSOR_UPDATE: u32 = 6;
const RESIZE: u32 = 0x1000;
/// `SCANOUT` for each head: what a console is told first.
const HEADS: [u32; MAX_SCANOUTS] = [SCANOUT; MAX_SCANOUTS];

/// Connects a console with these features. It has the messages of its negotiation.
pub(super) fn connect(machine: &mut Machine, features: u64) -> FrontEnd {
    let (socket, ours) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let gpu = &mut machine.gpu;
    gpu.displays
        .add_console(ours, gpu.virtio_gpu.scanouts_mut());
    gpu.watched.wake();
    machine.run();
    let mut console = FrontEnd(socket);
    assert_eq!(console.messages(), [FEATURES]);
    console.reply(FEATURES, &features.to_ne_bytes());
    machine.run();
    let mut message = [0; 20];
    console.0.read_exact(&mut message).unwrap();
    assert_eq!(message[..4], (FEATURES + 1).to_ne_bytes());
    // All that it is not to have is not accepted.
    let accepted = u64::from_ne_bytes(message[12..].try_into().unwrap());
    assert_eq!(accepted, features & 1 << 32);
    console
}

fn flush(machine: &mut Machine) {
    let rect = [0, 0, 16, 16, 1, 0];
    machine.control(command::TRANSFER_TO_HOST_2D, &[0, 0, 16, 16, 0, 0, 1, 0]);
    machine.control(command::RESOURCE_FLUSH, &rect);
}

/// The sizes that the console is told of head 0.
fn sizes(console: &mut FrontEnd) -> Vec<(u32, u32)> {
    let messages = console.payloads().into_iter();
    let scanouts = messages.filter(|(kind, _)| *kind == SCANOUT);
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    scanouts
        .filter(|(_, payload)| word(payload, 0) == 0)
        .map(|(_, payload)| (word(&payload, 4), word(&payload, 8)))
        .collect()
}

#[test]
fn console_comes_and_goes() {
    let mut machine = Machine::started();
    let mut vmm = machine.plug_settled_display();
    vmm.messages();
    let mut console = connect(&mut machine, 0);
    assert_eq!(console.messages(), HEADS);
    machine.show();
    assert_eq!(vmm.messages(), [SCANOUT, UPDATE]);
    assert_eq!(console.messages(), [SCANOUT, UPDATE]);
    machine.write(0, &[7; 1024]);
    flush(&mut machine);
    assert_eq!(vmm.messages(), [UPDATE]);
    assert_eq!(console.messages(), [UPDATE]);

    drop(console);
    machine.run();
    assert_eq!(machine.program.watched(CONSOLES).unwrap(), 0);
    machine.write(0, &[8; 1024]);
    flush(&mut machine);
    assert_eq!(vmm.messages(), [UPDATE]);

    // One that comes back is sent everything, and the other nothing.
    let mut console = connect(&mut machine, 0);
    assert_eq!(console.messages(), [&HEADS[..], &[UPDATE]].concat());
    assert!(vmm.messages().is_empty());
}

/// A console knows at once which heads are off: before a driver begins, and when the driver is gone.
#[test]
fn console_is_told_of_heads_that_are_off() {
    let mut machine = Machine::new();
    let mut early = connect(&mut machine, 0);
    assert_eq!(sizes(&mut early), [(0, 0)]);
    machine.start(0);
    machine.show();
    assert_eq!(sizes(&mut early), [(16, 16)]);

    machine.gpu.reset_device();
    machine.run();
    assert_eq!(sizes(&mut early), [(0, 0)]);
    let mut late = connect(&mut machine, 0);
    assert_eq!(sizes(&mut late), [(0, 0)]);
}

/// A guest that is paused looks as one that is gone: its picture stays, also for a console that connects then.
#[test]
fn picture_of_a_stopped_driver_stays_until_the_next_one() {
    let mut machine = Machine::started();
    machine.show();
    machine.gpu.stop_vring(0).unwrap();
    machine.gpu.stop_vring(1).unwrap();
    let mut console = connect(&mut machine, 0);
    assert_eq!(console.messages(), [&HEADS[..], &[UPDATE]].concat());
}

#[test]
fn console_is_shown_the_cursor_at_once() {
    let mut machine = Machine::started();
    machine.show();
    let create = [2, 1, 64, 64];
    assert_eq!(
        machine.control(command::RESOURCE_CREATE_2D, &create),
        response::OK_NODATA
    );
    machine.submit(
        CURSOR_QUEUE,
        &request(command::UPDATE_CURSOR, &[0, 5, 6, 0, 2, 1, 1, 0]),
        24,
    );
    machine.event(CURSOR_QUEUE);
    machine.run();
    let mut console = connect(&mut machine, 0);
    let expected = [&[CURSOR_UPDATE], &HEADS[..], &[UPDATE]].concat();
    assert_eq!(console.messages(), expected);
}

#[test]
fn queries_go_to_the_vmm_alone() {
    let mut machine = Machine::started();
    let mut console = connect(&mut machine, 3);
    console.messages();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert!(console.messages().is_empty());

    let mut vmm = machine.plug_settled_display();
    vmm.messages();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert!(console.messages().is_empty());
    assert_eq!(vmm.messages(), [DISPLAY_INFO]);
    let reply = Response::DisplayInfo(Box::default()).encode(&Header::default());
    vmm.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
}

/// Whatever a console sends that it was not asked for ends its connection, and nothing else.
#[test]
fn unexpected_messages_end_the_console_alone() {
    let word = |words: [u32; 3]| words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let messages: [Vec<u8>; 7] = [
        // The same reply once more, a reply to no request, one that is too long.
        [word([FEATURES, 4, 8]), vec![0; 8]].concat(),
        [word([DISPLAY_INFO, 4, 408]), vec![0; 408]].concat(),
        word([FEATURES, 4, u32::MAX]),
        // Requests: RESIZE without the feature, and those that only the GPU makes.
        [word([RESIZE, 0, 12]), vec![0; 12]].concat(),
        word([SCANOUT, 0, 12]),
        vec![0xff; 12],
        // A late answer to what a console is never sent.
        word([10, 4, 0]),
    ];
    for message in messages {
        let mut machine = Machine::started();
        let mut other = connect(&mut machine, 0);
        let mut console = connect(&mut machine, 0);
        console.0.write_all(&message).unwrap();
        machine.run();
        console.messages();
        let end = console.0.read(&mut [0]);
        assert!(matches!(end, Ok(0)), "{message:?}: {end:?}");
        assert_eq!(machine.program.watched(CONSOLES).unwrap(), 1);
        other.messages();
        machine.show();
        assert_eq!(other.messages(), [SCANOUT, UPDATE]);
    }
}

/// A console that asks for sizes without end is read in portions, and its answers are in order.
#[test]
fn flood_of_requests_is_read_in_portions() {
    let mut machine = Machine::started();
    let mut console = connect(&mut machine, 1 << 32);
    console.messages();
    let resize = |scanout: u32| {
        let words = [RESIZE, 0, 12, scanout, 640, 480];
        words
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let flood: Vec<u8> = (0..1000).flat_map(|n| resize(n % 3)).collect();
    console.0.write_all(&flood).unwrap();
    let now = Instant::now();
    machine.run();
    let answers = console.payloads();
    let portions = 1 + now.elapsed().as_millis() / 100;
    assert!(!answers.is_empty());
    assert!(
        answers.len() as u128 <= 32 * portions,
        "{} answers in {portions} portions",
        answers.len()
    );
    for ((kind, payload), n) in answers.iter().zip(0..) {
        assert_eq!(*kind, RESIZE);
        // There is one head, and it is not for a console to resize.
        let expected: u32 = if n % 3 == 0 { 1 } else { 3 };
        assert_eq!(payload[..], expected.to_ne_bytes());
    }
}
