// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A viewer that blocks: for screenshots, tests and benches.

mod stream;

use std::time::{Duration, Instant};

pub use stream::Connection;
use stream::Stream;

use crate::client_message::write_set_encodings;
use crate::handshake::{ClientHandshake, ServerInit, Version};
use crate::server_message::{
    LedState, PseudoRect, ServerMessage, UNTIL_LAST_RECT, read_rect_header,
};
use crate::{
    ClientMessage, Cursor, Decoder, Encoding, Fence, Frame, HandshakeError, PixelFormat, Rect,
    Screen, ServerMessageError,
};

/// Why a viewer gives up. The connection is not usable any more.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The two sides do not come together.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The server cannot be understood, or the connection failed.
    #[error(transparent)]
    Server(ServerMessageError),
    /// Sending failed.
    #[error("cannot write to the server: {0}")]
    Write(#[source] std::io::Error),
    /// The server takes too long.
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
    /// The server's framebuffer has more pixels than [`Frame::PIXELS_MAX`].
    #[error("the server's framebuffer of {0}x{1} is too large")]
    FrameSize(u16, u16),
}

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An update, which is drawn.
    Update(UpdateSummary),
    /// Colours of a map.
    ColourMap {
        /// The first colour's index.
        first: u16,
        /// Red, green and blue of 16 bits.
        colours: Vec<[u16; 3]>,
    },
    /// A bell rings.
    Bell,
    /// A text was copied.
    CutText(Vec<u8>),
    /// There are no continuous updates any more, or the server says that it has them.
    EndOfContinuousUpdates,
    /// The answer to a fence. Those of the server are answered at once.
    Fence(Fence),
}

/// What an update consisted of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateSummary {
    /// Rectangles of pixels in their order.
    pub pixels: Vec<(Rect, Encoding)>,
    /// Rectangles without pixels in their order.
    pub pseudo: Vec<PseudoRect>,
}

/// The most rectangles of an update whose number the server does not say.
const RECTS_MAX: usize = 1 << 20;

/// A viewer. Each call waits no longer than a limit.
#[derive(Debug)]
pub struct Client<S> {
    stream: Stream<S>,
    limit: Duration,
    decoder: Decoder,
    server_format: PixelFormat,
    frame: Frame,
    name: String,
    screens: Vec<Screen>,
    cursor: Option<Cursor>,
    leds: Option<LedState>,
    extended_keys: bool,
    extended_mouse_buttons: bool,
    out: Vec<u8>,
}

impl<S: Connection> Client<S> {
    /// Shakes hands, shares the desktop with other viewers, and asks for pixels as a [`Frame`] has them. Every
    /// later call has the same `limit`, unless [`Client::set_limit`] changes it.
    ///
    /// # Errors
    /// Where the server refuses, wants a password, does not follow the protocol, or takes too long.
    pub fn connect(stream: S, limit: Duration) -> Result<Self, ClientError> {
        Self::connect_as(stream, limit, Version::V3_8)
    }

    /// The same with at most that version of the protocol.
    ///
    /// # Errors
    /// As those of [`Client::connect`].
    pub fn connect_as(stream: S, limit: Duration, highest: Version) -> Result<Self, ClientError> {
        let mut stream = Stream::new(stream);
        stream.set_deadline(Instant::now() + limit);
        let mut handshake = ClientHandshake::new(highest, true);
        let mut out = Vec::new();
        let ServerInit {
            width,
            height,
            format,
            name,
        } = loop {
            let mut input = stream.buffered();
            let before = input.len();
            let done = handshake.advance(&mut input, &mut out)?;
            let taken = before - input.len();
            stream.consume(taken);
            stream.send(&out).map_err(|error| of_write(error, limit))?;
            out.clear();
            if let Some(init) = done {
                break init;
            }
            stream
                .fill()
                .map_err(|error| of_read(error.into(), limit))?;
        };
        let frame = Frame::new(width, height).ok_or(ClientError::FrameSize(width, height))?;
        let mut client = Self {
            stream,
            limit,
            decoder: Decoder::new(format),
            server_format: format,
            frame,
            name,
            screens: Vec::new(),
            cursor: None,
            leds: None,
            extended_keys: false,
            extended_mouse_buttons: false,
            out,
        };
        client.set_format(PixelFormat::XRGB8888)?;
        Ok(client)
    }

    /// How long each call may take.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Asks for pixels in another format. Only while no update is awaited: the server does not say in which format
    /// an update is.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn set_format(&mut self, format: PixelFormat) -> Result<(), ClientError> {
        self.send(&ClientMessage::SetPixelFormat(format))?;
        self.decoder.set_format(format);
        Ok(())
    }

    /// Says which encodings and pseudo-encodings the server may use, the preferred first.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn set_encodings(&mut self, encodings: &[Encoding]) -> Result<(), ClientError> {
        write_set_encodings(encodings, &mut self.out);
        self.flush()
    }

    /// Asks for pixels: of all of a rectangle, or of what changed in it.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn request(&mut self, incremental: bool, rect: Rect) -> Result<(), ClientError> {
        self.send(&ClientMessage::FramebufferUpdateRequest { incremental, rect })
    }

    /// Sends any message but `SetEncodings`.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        message.write(&mut self.out);
        self.flush()
    }

    /// Sends bytes as they are, for those who test servers.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    /// Presses or releases a key by its keysym.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn key(&mut self, keysym: u32, down: bool) -> Result<(), ClientError> {
        self.send(&ClientMessage::KeyEvent { down, keysym })
    }

    /// Presses or releases a key by its keysym and XT scancode.
    ///
    /// # Errors
    /// Where sending fails.
    pub fn extended_key(
        &mut self,
        keysym: u32,
        keycode: u32,
        down: bool,
    ) -> Result<(), ClientError> {
        self.send(&ClientMessage::QemuExtendedKeyEvent {
            down,
            keysym,
            keycode,
        })
    }

    /// Says where the pointer is and which buttons it presses ([`ClientMessage::PointerEvent`]).
    ///
    /// # Errors
    /// Where sending fails.
    pub fn pointer(&mut self, x: u16, y: u16, buttons: u16) -> Result<(), ClientError> {
        self.send(&ClientMessage::PointerEvent { buttons, x, y })
    }

    /// Waits for a message of the server, and draws it if it is an update. A fence that wants an answer gets one, and
    /// the wait goes on.
    ///
    /// # Errors
    /// Where the connection fails, the server takes too long or sends what cannot be understood.
    pub fn next_event(&mut self) -> Result<Event, ClientError> {
        self.stream.set_deadline(Instant::now() + self.limit);
        loop {
            let message = ServerMessage::read(&mut self.stream);
            match message.map_err(|error| of_read(error, self.limit))? {
                ServerMessage::FramebufferUpdate(count) => {
                    return self.update(count).map(Event::Update);
                }
                ServerMessage::SetColourMapEntries { first, colours } => {
                    return Ok(Event::ColourMap { first, colours });
                }
                ServerMessage::Bell => return Ok(Event::Bell),
                ServerMessage::ServerCutText(text) => return Ok(Event::CutText(text)),
                ServerMessage::EndOfContinuousUpdates => return Ok(Event::EndOfContinuousUpdates),
                ServerMessage::Fence(fence) if fence.flags & Fence::REQUEST != 0 => {
                    fence.answer().write(&mut self.out);
                    let sent = self.stream.send(&self.out);
                    self.out.clear();
                    sent.map_err(|error| of_write(error, self.limit))?;
                }
                ServerMessage::Fence(fence) => return Ok(Event::Fence(fence)),
            }
        }
    }

    /// Waits for an update; other events are dropped.
    ///
    /// # Errors
    /// As those of [`Client::next_event`].
    pub fn wait_for_update(&mut self) -> Result<UpdateSummary, ClientError> {
        loop {
            if let Event::Update(update) = self.next_event()? {
                return Ok(update);
            }
        }
    }

    /// Asks for the whole framebuffer, and waits until all of its pixels came, whatever its size is then.
    ///
    /// # Errors
    /// As those of [`Client::next_event`]. The limit counts for all of it.
    pub fn refresh(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.limit;
        let whole = self.limit;
        let done = self.refresh_until(deadline);
        self.limit = whole;
        match done {
            Err(ClientError::Timeout(_)) => Err(ClientError::Timeout(whole)),
            done => done,
        }
    }

    fn refresh_until(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let mut size = None;
        let mut missing = 0;
        loop {
            let asked = Some(self.frame.rect());
            if size != asked || missing == 0 {
                size = asked;
                missing = self.frame.rect().area();
                self.request(false, self.frame.rect())?;
            }
            self.limit = deadline.saturating_duration_since(Instant::now());
            let update = self.wait_for_update()?;
            if size == Some(self.frame.rect()) {
                // Servers send each pixel of a full update once.
                let came = update.pixels.iter().map(|(rect, _)| rect.area());
                missing = missing.saturating_sub(came.sum());
                if missing == 0 {
                    return Ok(());
                }
                if update.pixels.is_empty() {
                    // Servers tell the size, for instance, in an update of its own, which is the answer to a request.
                    self.request(true, self.frame.rect())?;
                }
            }
        }
    }

    /// Asks for what changes and waits, until the viewer sees something.
    ///
    /// # Errors
    /// As those of [`Client::next_event`]. The limit counts for all of it.
    pub fn wait_until(&mut self, mut seen: impl FnMut(&Self) -> bool) -> Result<(), ClientError> {
        let whole = self.limit;
        let deadline = Instant::now() + whole;
        let mut done = Ok(());
        while done.is_ok() && !seen(self) {
            self.limit = deadline.saturating_duration_since(Instant::now());
            let rect = self.frame.rect();
            done = self.request(true, rect);
            done = done.and_then(|()| self.wait_for_update().map(drop));
        }
        self.limit = whole;
        match done {
            Err(ClientError::Timeout(_)) => Err(ClientError::Timeout(whole)),
            done => done,
        }
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.set_deadline(Instant::now() + self.limit);
        let sent = self.stream.send(&self.out);
        self.out.clear();
        sent.map_err(|error| of_write(error, self.limit))
    }

    fn update(&mut self, count: u16) -> Result<UpdateSummary, ClientError> {
        let mut summary = UpdateSummary::default();
        let limit = self.limit;
        let mut left = if count == UNTIL_LAST_RECT {
            RECTS_MAX
        } else {
            count.into()
        };
        while left > 0 {
            left -= 1;
            let header = read_rect_header(&mut self.stream);
            let (rect, encoding) = header.map_err(|error| of_read(error, limit))?;
            let pseudo = PseudoRect::read(&mut self.stream, rect, encoding, self.decoder.format());
            match pseudo.map_err(|error| of_read(error, limit))? {
                Some(PseudoRect::LastRect) => return Ok(summary),
                Some(pseudo) => {
                    self.keep(&pseudo)?;
                    summary.pseudo.push(pseudo);
                }
                None => {
                    let (stream, frame) = (&mut self.stream, &mut self.frame);
                    let drawn = self.decoder.rect(stream, rect, encoding, frame);
                    drawn.map_err(|error| of_read(error, limit))?;
                    summary.pixels.push((rect, encoding));
                }
            }
        }
        if count == UNTIL_LAST_RECT {
            return Err(ClientError::Server(ServerMessageError::Broken {
                encoding: "update",
                reason: "it does not end",
            }));
        }
        Ok(summary)
    }

    fn keep(&mut self, pseudo: &PseudoRect) -> Result<(), ClientError> {
        match pseudo {
            PseudoRect::DesktopSize { width, height } => self.resize(*width, *height)?,
            PseudoRect::ExtendedDesktopSize {
                width,
                height,
                screens,
                reason,
                status,
            } => {
                // A refusal to this viewer names the size that stays.
                if !(*reason == 1 && *status != 0) {
                    self.resize(*width, *height)?;
                    self.screens.clone_from(screens);
                }
            }
            PseudoRect::Cursor(cursor) => self.cursor = Some(cursor.clone()),
            PseudoRect::DesktopName(name) => self.name.clone_from(name),
            PseudoRect::LedState(leds) => self.leds = Some(*leds),
            PseudoRect::QemuExtendedKeyEvent => self.extended_keys = true,
            PseudoRect::ExtendedMouseButtons => self.extended_mouse_buttons = true,
            PseudoRect::LastRect => {}
        }
        Ok(())
    }

    fn resize(&mut self, width: u16, height: u16) -> Result<(), ClientError> {
        if (width, height) != (self.frame.width(), self.frame.height()) {
            let resized = self.frame.resized(width, height);
            self.frame = resized.ok_or(ClientError::FrameSize(width, height))?;
        }
        Ok(())
    }

    /// The framebuffer as it was drawn.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The pixel format of the server's own framebuffer.
    #[must_use]
    pub fn server_format(&self) -> PixelFormat {
        self.server_format
    }

    /// The desktop's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The screens, where the server said them.
    #[must_use]
    pub fn screens(&self) -> &[Screen] {
        &self.screens
    }

    /// The pointer's shape, where the server said it.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The keyboard's locks, where the server said them.
    #[must_use]
    pub fn leds(&self) -> Option<LedState> {
        self.leds
    }

    /// Whether the server takes [`Client::extended_key`].
    #[must_use]
    pub fn has_extended_keys(&self) -> bool {
        self.extended_keys
    }

    /// Whether the server takes buttons from the eighth on.
    #[must_use]
    pub fn has_extended_mouse_buttons(&self) -> bool {
        self.extended_mouse_buttons
    }

    /// How many bytes the server sent.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.stream.received()
    }

    /// The connection, for those who need its socket. Reading from it loses messages.
    pub fn connection(&mut self) -> &mut S {
        self.stream.connection()
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

fn of_read(error: ServerMessageError, limit: Duration) -> ClientError {
    match error {
        ServerMessageError::Io(error) if is_timeout(&error) => ClientError::Timeout(limit),
        error => ClientError::Server(error),
    }
}

fn of_write(error: std::io::Error, limit: Duration) -> ClientError {
    if is_timeout(&error) {
        ClientError::Timeout(limit)
    } else {
        ClientError::Write(error)
    }
}

#[cfg(test)]
mod tests;
