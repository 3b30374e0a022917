// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A console that asks for other sizes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use display_protocol::{Features, Header, REPLY, Resize, ResizeResult, request};
use frontend::{DEFAULT_LIMIT, Program};

/// A console that asks for sizes, and reads nothing but the answers.
pub(crate) struct Asker(UnixStream);

impl Asker {
    pub(crate) fn connect(program: &mut Program) -> Self {
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

    pub(crate) fn send(&mut self, (scanout, width, height): (u32, u32, u32)) {
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

    pub(crate) fn answer(&mut self) -> ResizeResult {
        loop {
            let (header, payload) = self.message();
            if header.request == request::RESIZE {
                assert_eq!(header.flags, REPLY);
                return ResizeResult::decode(payload.try_into().unwrap()).unwrap();
            }
        }
    }

    pub(crate) fn ask(&mut self, wanted: (u32, u32, u32)) -> ResizeResult {
        self.send(wanted);
        self.answer()
    }
}
