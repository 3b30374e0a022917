//! A second display beside the VMM's.

use std::io::Read;

use super::*;
use crate::gpu::scanout::DisplayId;

const CONSOLE: DisplayId = DisplayId::other(1);
const CONSOLE_TOKEN: u16 = FENCE + 1;

fn machine() -> Machine {
    let mut machine = Machine::started();
    machine.gpu.displays.add(CONSOLE, CONSOLE_TOKEN);
    machine
}

/// Connects the second display, whose front-end has no features.
fn connect(machine: &mut Machine) -> FrontEnd {
    let (socket, ours) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let gpu = &mut machine.gpu;
    gpu.displays
        .attach(CONSOLE, ours, gpu.virtio_gpu.scanouts_mut());
    gpu.show();
    machine.run();
    let mut front_end = FrontEnd(socket);
    assert_eq!(front_end.messages(), [FEATURES]);
    front_end.reply(FEATURES, &0_u64.to_ne_bytes());
    machine.run();
    // SET_PROTOCOL_FEATURES.
    let mut header = [0; 20];
    front_end.0.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], (FEATURES + 1).to_ne_bytes());
    front_end
}

fn flush(machine: &mut Machine) {
    let rect = [0, 0, 16, 16, 1, 0];
    machine.control(command::TRANSFER_TO_HOST_2D, &[0, 0, 16, 16, 0, 0, 1, 0]);
    machine.control(command::RESOURCE_FLUSH, &rect);
}

#[test]
fn second_display_comes_and_goes() {
    let mut machine = machine();
    let mut vmm = machine.plug_settled_display();
    vmm.messages();
    let mut console = connect(&mut machine);
    machine.show();
    assert_eq!(vmm.messages(), [SCANOUT, UPDATE]);
    assert_eq!(console.messages(), [SCANOUT, UPDATE]);
    machine.write(0, &[7; 1024]);
    flush(&mut machine);
    assert_eq!(vmm.messages(), [UPDATE]);
    assert_eq!(console.messages(), [UPDATE]);

    drop(console);
    machine.run();
    assert_eq!(machine.program.watched(CONSOLE_TOKEN).unwrap(), 0);
    machine.write(0, &[8; 1024]);
    flush(&mut machine);
    assert_eq!(vmm.messages(), [UPDATE]);

    // One that comes back is sent everything, and the other nothing.
    let mut console = connect(&mut machine);
    assert_eq!(console.messages(), [SCANOUT, UPDATE]);
    assert!(vmm.messages().is_empty());
}

#[test]
fn queries_go_to_the_first_display_that_can_answer() {
    let mut machine = machine();
    let mut console = connect(&mut machine);
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(console.messages(), [DISPLAY_INFO]);
    let reply = Response::DisplayInfo(Box::default()).encode(&Header::default());
    console.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));

    let mut vmm = machine.plug_settled_display();
    vmm.messages();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert!(console.messages().is_empty());
    assert_eq!(vmm.messages(), [DISPLAY_INFO]);
    vmm.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
}
