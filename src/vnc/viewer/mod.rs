// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A viewer: its connection from the first byte to the last.

mod control;
mod desktop_size;
mod error;
mod flow;
mod output;
mod session;
mod update;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rfb::server_message::{DesktopSizeReason, DesktopSizeStatus, LedState};
use rfb::{ClientMessageParser, PixelFormat, ServerHandshake, ServerInit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use crate::geometry::Size;
use crate::vnc::head::Head;
use crate::vnc::wire::to_u16;

pub(crate) use error::ViewerError;
use output::Output;
use session::Session;

/// How long the handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// How long a viewer that was refused has to read why.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are read at once.
const RECEIVE: usize = 4 << 10;
/// Messages that are taken before others have their turn.
const TURN: usize = 256;
/// Bytes that the socket is to buffer: fewer and larger writes.
const SEND_BUFFER: usize = 416 << 10;

/// What a viewer asks of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A key.
    Key {
        /// Pressed, or released.
        down: bool,
        /// X11's number of the symbol.
        keysym: u32,
        /// The scancode, of viewers that know it.
        keycode: Option<u32>,
    },
    /// The pointer.
    Pointer {
        /// The buttons that are pressed.
        buttons: u16,
        /// Column.
        x: u16,
        /// Row.
        y: u16,
        /// Of a picture of this size.
        size: Size,
    },
    /// Another size of the head.
    Resize(Size),
}

/// A viewer.
pub(crate) struct Viewer {
    socket: OwnedFd,
    /// Bytes that do not make a message yet.
    input: Vec<u8>,
    /// Whether there may be whole messages in it.
    more_input: bool,
    output: Output,
    /// The socket takes no more bytes at the moment.
    blocked: bool,
    stage: Stage,
    deadline: Option<Instant>,
}

enum Stage {
    Handshake(ServerHandshake),
    /// The handshake is done but for the picture's size.
    Waiting,
    Running(Box<Running>),
    /// The connection ends when the output is sent.
    Refused,
}

struct Running {
    parser: ClientMessageParser,
    session: Session,
}

impl Viewer {
    /// A viewer that has just connected, by a socket that does not block.
    pub(crate) fn new(socket: OwnedFd, now: Instant) -> Self {
        Self::begin(socket, now, ServerHandshake::new)
    }

    /// A viewer that is told why it cannot look.
    pub(crate) fn refused(socket: OwnedFd, reason: &str, now: Instant) -> Self {
        let refuse = |out: &mut Vec<u8>| ServerHandshake::refuse(out, reason.to_owned());
        Self::begin(socket, now, refuse)
    }

    fn begin(
        socket: OwnedFd,
        now: Instant,
        handshake: impl FnOnce(&mut Vec<u8>) -> ServerHandshake,
    ) -> Self {
        // A smaller buffer works too.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let mut output = Output::default();
        let handshake = output.write(handshake);
        Self {
            socket,
            input: Vec::new(),
            more_input: false,
            output,
            blocked: false,
            stage: Stage::Handshake(handshake),
            deadline: Some(now + HANDSHAKE_LIMIT),
        }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// When it is disconnected if it does nothing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The error of a viewer whose deadline has passed.
    pub(crate) fn check_deadline(&self, now: Instant) -> Result<(), ViewerError> {
        match self.deadline {
            Some(deadline) if deadline <= now => {
                Err(ViewerError::TooSlow(HANDSHAKE_LIMIT.as_secs()))
            }
            _ => Ok(()),
        }
    }

    /// Whether it waits for [`Self::start`].
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Whether the socket is to be read.
    pub(crate) fn wants_input(&self) -> bool {
        match &self.stage {
            Stage::Handshake(_) | Stage::Refused => true,
            Stage::Waiting => self.input.is_empty(),
            Stage::Running(running) => !running.session.is_busy(),
        }
    }

    /// Whether it sent messages that are not taken yet and can be now.
    pub(crate) fn has_input(&self) -> bool {
        self.more_input && self.wants_input()
    }

    /// Whether bytes wait until the socket takes more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Says that the socket takes more bytes.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Bytes that wait in memory of its own.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn kept(&self) -> usize {
        self.output.kept() + self.input.len()
    }

    /// Reads what the viewer sent, and adds what it asks of the VM to `actions`.
    ///
    /// # Errors
    /// Where the viewer is to be disconnected.
    pub(crate) fn receive(
        &mut self,
        head: &Head,
        actions: &mut Vec<Action>,
    ) -> Result<(), ViewerError> {
        let mut buffer = [0; RECEIVE];
        // What is left of it is less than a message, or more than a turn takes.
        let room = buffer.get_mut(self.input.len()..).unwrap_or_default();
        if !room.is_empty() {
            let read = match recv(&self.socket, &mut *room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => {
                    return Err(ViewerError::Closed);
                }
                Ok((read, _)) => read,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(e) => return Err(failed("read from it")(e)),
            };
            let new = room.get(..read).unwrap_or_default();
            // Whatever a viewer says that was refused.
            if !matches!(self.stage, Stage::Refused) {
                self.input.extend_from_slice(new);
            }
        }
        self.take_input(head, actions)
    }

    fn take_input(&mut self, head: &Head, actions: &mut Vec<Action>) -> Result<(), ViewerError> {
        let input = std::mem::take(&mut self.input);
        let mut left = input.as_slice();
        let more = loop {
            match &mut self.stage {
                Stage::Handshake(handshake) => {
                    let advanced = self.output.write(|out| handshake.advance(&mut left, out));
                    match advanced {
                        Ok(Some(_)) => self.stage = Stage::Waiting,
                        Ok(None) => break false,
                        Err(rfb::HandshakeError::Refusing(_)) => {
                            self.stage = Stage::Refused;
                            self.deadline = Some(Instant::now() + REFUSAL_LIMIT);
                            left = &[];
                            break false;
                        }
                        Err(e) => {
                            // The viewer may be told why.
                            let _ = self.output.send(&self.socket);
                            return Err(e.into());
                        }
                    }
                }
                Stage::Waiting | Stage::Refused => break false,
                Stage::Running(running) => break running.take(&mut left, head, actions)?,
            }
        };
        self.input = left.to_vec();
        self.more_input = more;
        Ok(())
    }

    /// Tells a viewer that waits for it the picture's size and the head's name.
    ///
    /// # Errors
    /// Where the viewer is to be disconnected.
    pub(crate) fn start(
        &mut self,
        head: &Head,
        leds: LedState,
        actions: &mut Vec<Action>,
    ) -> Result<(), ViewerError> {
        let size = head.size();
        let init = ServerInit {
            width: to_u16(size.width),
            height: to_u16(size.height),
            format: PixelFormat::XRGB8888,
            name: head.name(),
        };
        self.output.write(|out| init.write(out));
        self.deadline = None;
        self.stage = Stage::Running(Box::new(Running {
            parser: ClientMessageParser::default(),
            session: Session::new(size, leds),
        }));
        self.take_input(head, actions)
    }

    /// Takes what changed on its head.
    pub(crate) fn note_changes(&mut self, head: &Head) {
        if let Stage::Running(running) = &mut self.stage {
            running.session.note_changes(head);
            if head.changes().picture {
                self.output.forget_pixels();
            }
        }
    }

    /// Takes the state of the keyboard's LEDs.
    pub(crate) fn set_leds(&mut self, leds: LedState) {
        if let Stage::Running(running) = &mut self.stage {
            running.session.set_leds(leds);
        }
    }

    /// Says how its request for another size ended.
    pub(crate) fn answer_resize(&mut self, status: DesktopSizeStatus) {
        if let Stage::Running(running) = &mut self.stage {
            running.session.answer_resize(status);
        }
    }

    /// Says why its head has another size.
    pub(crate) fn resized(&mut self, size: Size, reason: DesktopSizeReason) {
        if let Stage::Running(running) = &mut self.stage {
            running.session.resized(size, reason);
        }
    }

    /// Encodes and sends what the viewer is to get, as far as its socket takes it and until `stop` says that it is
    /// time for others. Returns whether there is more to do at once.
    ///
    /// # Errors
    /// Where the viewer is to be disconnected.
    pub(crate) fn send(
        &mut self,
        head: &Head,
        stop: impl Fn() -> bool,
    ) -> Result<bool, ViewerError> {
        while !self.blocked {
            let encoded = match &mut self.stage {
                Stage::Running(running) => running.session.encode(head, &mut self.output),
                Stage::Handshake(_) | Stage::Waiting | Stage::Refused => false,
            };
            if self.output.unsent() > 0 {
                self.blocked = !self.output.send(&self.socket).map_err(|e| match e {
                    Errno::PIPE | Errno::CONNRESET => ViewerError::Closed,
                    e => failed("write to it")(e),
                })?;
            }
            if matches!(self.stage, Stage::Refused) && self.output.unsent() == 0 {
                // The viewer reads why, and closes the connection.
                let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
            }
            if !encoded && self.output.unsent() == 0 {
                return Ok(false);
            }
            if stop() {
                return Ok(!self.blocked);
            }
        }
        Ok(false)
    }
}

impl Running {
    /// Takes messages off `input`. Returns whether whole ones may be left.
    fn take(
        &mut self,
        input: &mut &[u8],
        head: &Head,
        actions: &mut Vec<Action>,
    ) -> Result<bool, ViewerError> {
        for _ in 0..TURN {
            if self.session.is_busy() {
                return Ok(true);
            }
            let Some(message) = self.parser.next(input)? else {
                return Ok(false);
            };
            actions.extend(self.session.take(message, head));
            let extended = self.session.takes_extended_buttons();
            self.parser.set_extended_mouse_buttons(extended);
        }
        Ok(true)
    }
}

fn failed(attempt: &'static str) -> impl Fn(Errno) -> ViewerError {
    move |errno| ViewerError::Io {
        attempt,
        error: errno.into(),
    }
}
