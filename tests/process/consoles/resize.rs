// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles that ask for another size.

use std::io::Write as _;

use display_protocol::{Features, Header, REPLY, Resize, ResizeResult, request};

use super::*;

/// A console that asks for sizes, and reads nothing but the answers.
pub(super) struct Asker(UnixStream);

impl Asker {
    pub(super) fn connect(program: &mut Program) -> Self {
        let socket = program.connect_further("display").unwrap();
        socket.set_read_timeout(Some(DEFAULT_LIMIT)).unwrap();
        let mut asker = Self(socket);
        assert_eq!(asker.message().0.request, request::GET_PROTOCOL_FEATURES);
        let header = Header {
            request: request::GET_PROTOCOL_FEATURES,
            flags: REPLY,
            size: Features::LEN as u32,
        };
        // All that there are.
        asker.0.write_all(&header.encode()).unwrap();
        asker.0.write_all(&[0xff; 8]).unwrap();
        let (header, accepted) = asker.message();
        assert_eq!(header.request, request::SET_PROTOCOL_FEATURES);
        assert_eq!(accepted, Features::RESIZE.encode());
        asker
    }

    fn message(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; Header::LEN];
        self.0.read_exact(&mut header).unwrap();
        let header = Header::decode(&header);
        let mut payload = vec![0; header.size as usize];
        self.0.read_exact(&mut payload).unwrap();
        (header, payload)
    }

    pub(super) fn send(&mut self, (scanout, width, height): (u32, u32, u32)) {
        let header = Header {
            request: request::RESIZE,
            flags: 0,
            size: Resize::LEN as u32,
        };
        let resize = Resize {
            scanout,
            width,
            height,
        };
        self.0.write_all(&header.encode()).unwrap();
        self.0.write_all(&resize.encode()).unwrap();
    }

    pub(super) fn answer(&mut self) -> ResizeResult {
        loop {
            let (header, payload) = self.message();
            if header.request == request::RESIZE {
                assert_eq!(header.flags, REPLY);
                return ResizeResult::decode(payload.try_into().unwrap()).unwrap();
            }
        }
    }

    pub(super) fn ask(&mut self, wanted: (u32, u32, u32)) -> ResizeResult {
        self.send(wanted);
        self.answer()
    }
}

#[test]
fn sizes_are_the_vmms_where_it_has_a_display() {
    let mut vm = with_vmm();
    let mut asker = Asker::connect(&mut vm.program);
    for (wanted, result) in [
        ((0, 640, 480), ResizeResult::Refused),
        ((15, 16384, 1), ResizeResult::Refused),
        ((16, 640, 480), ResizeResult::NoSuchScanout),
        ((u32::MAX, 0, 0), ResizeResult::NoSuchScanout),
        ((0, 0, 480), ResizeResult::InvalidSize),
        ((0, 640, 16385), ResizeResult::InvalidSize),
    ] {
        assert_eq!(asker.ask(wanted), result, "{wanted:?}");
    }
    vm.finish();
}

/// Between the pictures of a guest that draws.
#[test]
fn answers_are_in_the_order_of_the_requests() {
    let mut vm = with_vmm();
    vm.painted(1, XRGB, SIZE);
    let mut asker = Asker::connect(&mut vm.program);
    for n in 0..20 {
        asker.send((n, 640, 480));
        show_on_0(&mut vm.gpu, ALL);
    }
    for n in 0..20 {
        let expected = match n {
            ..16 => ResizeResult::Refused,
            _ => ResizeResult::NoSuchScanout,
        };
        assert_eq!(asker.answer(), expected);
    }
    vm.finish();
}
