// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Doors for the target in fuzz/: a GPU's and a viewer's bytes, without a program; and for `benches/parts`.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rfb::server_message::LedState;

pub use crate::vnc::damage::{Part, parts};
use crate::vnc::display::{Decoder, Progress};
use crate::vnc::head::Head;
use crate::vnc::viewer::{Action, Viewer};

/// Bytes that are read of the GPU in one turn.
const TURN: usize = 1 << 20;

/// One head, its GPU and a viewer of it.
pub struct Console {
    gpu: UnixStream,
    display: UnixStream,
    decoder: Decoder,
    heads: [Head; 1],
    peer: UnixStream,
    viewer: Viewer,
    actions: Vec<Action>,
}

impl Console {
    /// A viewer that has sent nothing, and a GPU that has shown nothing.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (gpu, display) = UnixStream::pair()?;
        let (peer, socket) = UnixStream::pair()?;
        for socket in [&gpu, &display, &peer, &socket] {
            socket.set_nonblocking(true)?;
        }
        Ok(Self {
            gpu,
            display,
            decoder: Decoder::new(),
            heads: [Head::new("vm1".to_owned())],
            peer,
            viewer: Viewer::new(socket.into(), Instant::now()),
            actions: Vec::new(),
        })
    }

    /// The GPU sends bytes. Returns whether the console goes on with it.
    pub fn gpu_sends(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let sent = self.gpu.write(bytes).unwrap_or(0);
            bytes = bytes.get(sent..).unwrap_or_default();
            match self
                .decoder
                .read(&self.display, &mut self.heads, &mut { TURN })
            {
                Ok(Progress::Drained) if bytes.is_empty() => break,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        for head in &mut self.heads {
            self.viewer.note_changes(head);
            head.forget_changes();
        }
        true
    }

    /// The viewer sends bytes. Returns whether the console goes on with it.
    pub fn viewer_sends(&mut self, mut bytes: &[u8]) -> bool {
        let [head] = &self.heads;
        loop {
            let sent = self.peer.write(bytes).unwrap_or(0);
            bytes = bytes.get(sent..).unwrap_or_default();
            if self.viewer.wants_input() && self.viewer.receive(head, &mut self.actions).is_err() {
                return false;
            }
            if self.viewer.is_waiting() {
                let leds = LedState::default();
                let started = self.viewer.start(head, leds, &mut self.actions);
                if started.is_err() {
                    return false;
                }
            }
            self.actions.clear();
            if self.viewer.send(head, || true).is_err() {
                return false;
            }
            // A viewer that is not read until it reads.
            if bytes.is_empty() || !self.viewer.wants_input() {
                return true;
            }
        }
    }

    /// The viewer reads up to `limit` bytes. Returns them.
    pub fn viewer_reads(&mut self, limit: usize) -> Vec<u8> {
        let mut bytes = vec![0; limit];
        let read = self.peer.read(&mut bytes).unwrap_or(0);
        bytes.truncate(read);
        self.viewer.unblock();
        bytes
    }

    /// Bytes that the console keeps for the viewer, but for pixels of the picture.
    pub fn kept(&self) -> usize {
        self.viewer.kept()
    }
}
