// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A GPU's end of the display socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use display_protocol::{
    CursorPosition, CursorUpdate, Features, Header, REPLY, Resize, ResizeResult, Scanout, Update,
    request,
};
use frontend::Deadline;
use rustix::event::PollFlags;

use crate::common::QUICK;

/// A GPU that shows what it is told.
pub(super) struct FakeGpu {
    listener: UnixListener,
    console: Option<UnixStream>,
}

impl FakeGpu {
    pub(super) fn listen(path: &Path) -> Self {
        // What a GPU that has ended left.
        let _ = std::fs::remove_file(path);
        Self {
            listener: UnixListener::bind(path).unwrap(),
            console: None,
        }
    }

    /// Accepts the console and negotiates.
    pub(super) fn accept(&mut self, features: Features) {
        let waiting = Deadline::after(QUICK).ready(&self.listener, PollFlags::IN);
        assert!(waiting.unwrap(), "the console does not connect");
        let (console, _) = self.listener.accept().unwrap();
        console.set_read_timeout(Some(QUICK)).unwrap();
        console.set_write_timeout(Some(QUICK)).unwrap();
        self.console = Some(console);
        self.send(request::GET_PROTOCOL_FEATURES, 0, &[]);
        let (header, payload) = self.receive();
        assert_eq!(
            (header.request, header.flags),
            (request::GET_PROTOCOL_FEATURES, REPLY)
        );
        let offered = Features::decode(payload.try_into().unwrap());
        assert_eq!(offered, Features::RESIZE);
        let accepted = features.intersection(offered);
        self.send(request::SET_PROTOCOL_FEATURES, 0, &accepted.encode());
    }

    /// Whether a console connects within `limit`.
    pub(super) fn is_wanted(&self, limit: Duration) -> bool {
        let waiting = Deadline::after(limit).ready(&self.listener, PollFlags::IN);
        waiting.unwrap()
    }

    pub(super) fn console(&mut self) -> &mut UnixStream {
        self.console.as_mut().expect("no console was accepted")
    }

    /// Ends as a process does: the service manager keeps the socket.
    pub(super) fn end(&mut self) {
        self.console = None;
    }

    /// Waits until the console closes the connection.
    pub(super) fn wait_closed(&mut self) {
        // A console that has not read all resets the connection.
        match self.console().read_to_end(&mut Vec::new()) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            read => drop(read.unwrap()),
        }
        self.console = None;
    }

    pub(super) fn send(&mut self, request: u32, flags: u32, payload: &[u8]) {
        let header = Header {
            request,
            flags,
            size: payload.len() as u32,
        };
        let message = [&header.encode(), payload].concat();
        self.console().write_all(&message).unwrap();
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; Header::LEN];
        self.console().read_exact(&mut header).unwrap();
        let header = Header::decode(&header);
        let mut payload = vec![0; header.size as usize];
        self.console().read_exact(&mut payload).unwrap();
        (header, payload)
    }

    /// Sets the size of a head; 0 by 0 switches it off.
    pub(super) fn scanout(&mut self, scanout: u32, width: u16, height: u16) {
        let payload = Scanout {
            scanout,
            width: width.into(),
            height: height.into(),
        };
        self.send(request::SCANOUT, 0, &payload.encode());
    }

    /// Draws pixels at a place of head 0.
    pub(super) fn update(&mut self, x: u16, y: u16, width: u16, height: u16, pixels: &[u8]) {
        self.update_head(0, [x, y, width, height], pixels);
    }

    /// Draws pixels at a place of a head.
    pub(super) fn update_head(&mut self, scanout: u32, rect: [u16; 4], pixels: &[u8]) {
        let [x, y, width, height] = rect.map(u32::from);
        let update = Update {
            scanout,
            x,
            y,
            width,
            height,
        };
        let payload = [&update.encode(), pixels].concat();
        self.send(request::UPDATE, 0, &payload);
    }

    /// Shows a cursor on head 0.
    pub(super) fn cursor(&mut self, position: (u32, u32), hot: (u32, u32), pixels: &[u8]) {
        let update = CursorUpdate {
            scanout: 0,
            x: position.0,
            y: position.1,
            hot_x: hot.0,
            hot_y: hot.1,
        };
        let payload = [&update.encode(), pixels].concat();
        self.send(request::CURSOR_UPDATE, 0, &payload);
    }

    /// Moves or hides the cursor of head 0.
    pub(super) fn move_cursor(&mut self, visible: bool, (x, y): (u32, u32)) {
        let position = CursorPosition { scanout: 0, x, y };
        let request = if visible {
            request::CURSOR_POS
        } else {
            request::CURSOR_POS_HIDE
        };
        self.send(request, 0, &position.encode());
    }

    /// Takes the console's request for another size, and answers it.
    pub(super) fn answer_resize(&mut self, result: ResizeResult) -> Resize {
        let (header, payload) = self.receive();
        assert_eq!((header.request, header.flags), (request::RESIZE, 0));
        self.send(request::RESIZE, REPLY, &result.encode());
        Resize::decode(&payload).unwrap()
    }
}
