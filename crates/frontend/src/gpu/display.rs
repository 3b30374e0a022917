// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's part of the vhost-user-gpu protocol (docs/interop/vhost-user-gpu.rst), polled by its
//! owner.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use super::{DmabufScanout, EDID_RESPONSE_SIZE, HEADER_SIZE as CTRL_HDR_SIZE, MAX_SCANOUTS, Rect};
use crate::channel::receive_some;
use crate::{DEFAULT_LIMIT, Deadline, Error, Result};

pub use message::{Received, Request};
pub use options::{DisplayOptions, EdidAnswer, Mode};
pub use surface::{Cursor, Surface};

mod message;
mod options;
mod surface;

const REPLY: u32 = 4;
/// request, flags and size, 32 bits each.
const HEADER_SIZE: usize = 12;
/// Width and height of a cursor in pixels.
const CURSOR_SIZE: usize = 64;
/// The most of an answer's structure: `virtio_gpu_resp_edid`.
const EDID_SIZE: usize = 1024;
/// Larger than any message QEMU could be sent about a 16384x16384 surface.
const MAX_SIZE: usize = 16384 * 16384 * 4 + 4096;

/// The display, and what it was told. Nothing happens on its own: see [`Display::serve`], and
/// [`super::DisplayThread`] for one that does.
#[derive(Debug)]
pub struct Display {
    /// How it behaves; may be changed at any time.
    pub options: DisplayOptions,
    /// What each scanout shows; none before its first SCANOUT and once it is disabled.
    pub surfaces: Vec<Option<Surface>>,
    /// What each scanout shows if it was given as a dmabuf.
    pub dmabufs: Vec<Option<DmabufScanout>>,
    /// The pointer.
    pub cursor: Cursor,
    /// All messages, oldest first.
    pub received: Vec<Received>,
    /// All bytes that were read.
    pub bytes: usize,
    /// The protocol features the backend set.
    pub protocol_features: Option<u64>,
    /// Whether the backend closed the socket, or the options did.
    pub closed: bool,
    /// How many DMABUF_UPDATE are not answered yet.
    pub held_updates: usize,
    socket: Option<UnixStream>,
    scratch: Vec<u8>,
}

impl Display {
    /// A display, and the end of its socket that the backend gets.
    ///
    /// # Errors
    /// As `socketpair(2)` and `setsockopt(2)`.
    pub fn new(options: DisplayOptions) -> Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("socketpair"))?;
        if let Some(size) = options.buffer {
            for socket in [&ours, &theirs] {
                set_socket_send_buffer_size(socket, size).map_err(Error::os("SO_SNDBUF"))?;
                set_socket_recv_buffer_size(socket, size).map_err(Error::os("SO_RCVBUF"))?;
            }
        }
        Ok((Self::on(ours, options), theirs))
    }

    /// A display on a connected socket, such as a console's.
    pub fn on(socket: UnixStream, options: DisplayOptions) -> Self {
        Self {
            surfaces: vec![None; MAX_SCANOUTS],
            dmabufs: (0..MAX_SCANOUTS).map(|_| None).collect(),
            cursor: Cursor::default(),
            received: Vec::new(),
            bytes: 0,
            protocol_features: None,
            closed: false,
            held_updates: 0,
            socket: Some(socket),
            scratch: Vec::new(),
            options,
        }
    }

    pub(super) fn socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// Closes the socket, as QEMU does when the guest resets the device.
    pub fn close(&mut self) {
        self.socket = None;
        self.closed = true;
    }

    /// The picture of a scanout.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it has none.
    pub fn surface(&self, scanout: u32) -> Result<&Surface> {
        let none = || Error::Protocol(format!("scanout {scanout} shows nothing"));
        self.surfaces
            .get(scanout as usize)
            .and_then(Option::as_ref)
            .ok_or_else(none)
    }

    /// The messages of one kind, oldest first.
    pub fn of(&self, request: Request) -> impl Iterator<Item = &Received> {
        self.received.iter().filter(move |r| r.request == request)
    }

    /// Forgets the messages; pictures stay.
    pub fn forget(&mut self) {
        self.received.clear();
    }

    /// Serves one message. Gives whether there was one before `limit`: there is none either once
    /// the socket is closed ([`Display::closed`]).
    ///
    /// # Errors
    /// [`Error::Protocol`] for what QEMU would not take: an unknown request, a wrong size, a scanout
    /// that does not exist, an UPDATE outside the surface or without one. [`Error::Timeout`] if a
    /// message stops in its middle.
    pub fn serve(&mut self, limit: Duration) -> Result<bool> {
        let Some(socket) = &self.socket else {
            return Ok(false);
        };
        if !Deadline::after(limit).ready(socket, PollFlags::IN)? {
            return Ok(false);
        }
        match self.message() {
            Ok(()) => Ok(true),
            Err(e) if e.is_closed() => {
                self.close();
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Serves all messages that are there.
    ///
    /// # Errors
    /// As [`Display::serve`].
    pub fn serve_all(&mut self) -> Result<()> {
        while self.serve(Duration::ZERO)? {}
        Ok(())
    }

    /// Serves messages until `done`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`]; as [`Display::serve`].
    pub fn serve_until(&mut self, what: &'static str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Deadline::after(DEFAULT_LIMIT);
        while !done(self) {
            if !self.serve(deadline.left())? {
                return Err(deadline.missed(what));
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<()> {
        let deadline = Deadline::default();
        let mut header = [0; HEADER_SIZE];
        let mut fds = Vec::new();
        self.read(&mut header, &mut fds, &deadline)?;
        let word = |n: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[4 * n + i]));
        let (number, flags, size) = (word(0), word(1), word(2) as usize);
        let broken = |why: String| Error::Protocol(format!("display message {number}: {why}"));
        let Some(request) = Request::from_number(number) else {
            return Err(broken("unknown".into()));
        };
        if flags != 0 && self.options.strict {
            return Err(broken(format!("flags {flags:#x} in a request")));
        }
        let fixed = request.fixed_size();
        if size < fixed || size > MAX_SIZE {
            return Err(broken(format!("{size} bytes")));
        }
        let mut fields = [0; 48];
        self.read(&mut fields[..fixed], &mut fds, &deadline)?;
        let words =
            std::array::from_fn(|n| u32::from_ne_bytes([0, 1, 2, 3].map(|i| fields[4 * n + i])));
        let received = Received {
            request,
            words,
            size: HEADER_SIZE + size,
        };
        let pixels = match request {
            Request::Update => {
                let Rect { width, height, .. } = received.rect();
                width as usize * height as usize * 4
            }
            Request::CursorUpdate => CURSOR_SIZE * CURSOR_SIZE * 4,
            _ => 0,
        };
        if size != fixed + pixels {
            return Err(broken(format!(
                "{size} bytes instead of {}",
                fixed + pixels
            )));
        }
        let about_scanout = !matches!(
            request,
            Request::GetProtocolFeatures | Request::SetProtocolFeatures | Request::GetDisplayInfo
        );
        if about_scanout && received.scanout() as usize >= MAX_SCANOUTS {
            return Err(broken(format!("scanout {}", received.scanout())));
        }
        self.obey(&received, fds, &deadline)?;
        self.received.push(received);
        Ok(())
    }

    fn obey(
        &mut self,
        received: &Received,
        mut fds: Vec<OwnedFd>,
        deadline: &Deadline,
    ) -> Result<()> {
        let [scanout, a, b, hot_x, hot_y, ..] = received.words;
        let index = scanout as usize;
        match received.request {
            Request::GetProtocolFeatures => {
                let edid = matches!(self.options.edid, EdidAnswer::Blocks(_));
                let features = u64::from(edid) | u64::from(self.options.dmabuf2) << 1;
                self.answer(received.request, &features.to_ne_bytes())
            }
            Request::SetProtocolFeatures => {
                self.protocol_features = Some(u64::from(scanout) | u64::from(a) << 32);
                Ok(())
            }
            Request::GetDisplayInfo => {
                let answer = self.display_info();
                self.answer(received.request, &answer)
            }
            Request::GetEdid => match &self.options.edid {
                EdidAnswer::Blocks(blocks) if index < blocks.len() => {
                    let answer = edid(&blocks[index]);
                    self.answer(received.request, &answer)
                }
                _ => Ok(()),
            },
            Request::CursorPos | Request::CursorPosHide => {
                self.cursor.scanout = scanout;
                self.cursor.position = (a, b);
                self.cursor.visible = received.request == Request::CursorPos;
                Ok(())
            }
            Request::CursorUpdate => {
                let mut pixels = std::mem::take(&mut self.cursor.pixels);
                pixels.resize(CURSOR_SIZE * CURSOR_SIZE * 4, 0);
                self.read(&mut pixels, &mut fds, deadline)?;
                self.cursor = Cursor {
                    scanout,
                    position: (a, b),
                    hot_spot: (hot_x, hot_y),
                    visible: true,
                    pixels,
                };
                Ok(())
            }
            Request::Scanout => {
                let (width, height) = (a, b);
                if width as usize * height as usize * 4 > MAX_SIZE {
                    return Err(Error::Protocol(format!("a SCANOUT of {width}x{height}")));
                }
                let shown = width > 0 && height > 0;
                self.surfaces[index] = shown.then(|| Surface::new(width, height));
                self.dmabufs[index] = None;
                Ok(())
            }
            Request::Update => self.draw(index, received.rect(), deadline),
            Request::DmabufScanout | Request::DmabufScanout2 => {
                let [fields @ .., low, high] = received.words;
                let modifier = (received.request == Request::DmabufScanout2)
                    .then(|| u64::from(low) | u64::from(high) << 32);
                let fd = fds.pop();
                let shown = fields[3] > 0 && fields[4] > 0;
                if shown != fd.is_some() {
                    return Err(Error::Protocol(format!(
                        "a DMABUF_SCANOUT of {}x{} with {} descriptors",
                        fields[3],
                        fields[4],
                        usize::from(fd.is_some()),
                    )));
                }
                self.surfaces[index] = None;
                self.dmabufs[index] = shown.then_some(DmabufScanout {
                    fields,
                    modifier,
                    fd,
                });
                Ok(())
            }
            Request::DmabufUpdate => {
                // As QEMU, which draws what it was passed last.
                if self.dmabufs[index].is_none() {
                    return Err(Error::Protocol(format!(
                        "a DMABUF_UPDATE of {index} without a buffer"
                    )));
                }
                self.held_updates += 1;
                if self.options.hold_updates {
                    return Ok(());
                }
                self.answer_updates()
            }
        }
    }

    fn draw(&mut self, index: usize, rect: Rect, deadline: &Deadline) -> Result<()> {
        let row = rect.width as usize * 4;
        let len = row * rect.height as usize;
        let Some(mut surface) = self.surfaces[index].take() else {
            return Err(Error::Protocol(format!(
                "an UPDATE before a SCANOUT of {index}"
            )));
        };
        if !surface.contains(rect) {
            let (w, h) = (surface.width, surface.height);
            return Err(Error::Protocol(format!(
                "an UPDATE of {rect:?} outside scanout {index} of {w}x{h}"
            )));
        }
        let stride = surface.width as usize * 4;
        let start = rect.y as usize * stride + rect.x as usize * 4;
        let mut fds = Vec::new();
        if row == stride && self.options.draw {
            self.read(&mut surface.pixels[start..start + len], &mut fds, deadline)?;
        } else {
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.resize(len.max(scratch.len()), 0);
            self.read(&mut scratch[..len], &mut fds, deadline)?;
            if self.options.draw && row > 0 {
                let rows = surface.pixels[start..].chunks_mut(stride);
                for (to, from) in rows.zip(scratch[..len].chunks(row)) {
                    to[..row].copy_from_slice(from);
                }
            }
            self.scratch = scratch;
        }
        self.surfaces[index] = Some(surface);
        Ok(())
    }

    /// Answers each DMABUF_UPDATE that is not answered yet.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn answer_updates(&mut self) -> Result<()> {
        for _ in 0..std::mem::take(&mut self.held_updates) {
            self.answer(Request::DmabufUpdate, &[])?;
        }
        Ok(())
    }

    /// The picture of a scanout that was given as a dmabuf, as it is now.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it was not, as [`DmabufScanout::picture`].
    pub fn dmabuf_picture(&self, scanout: u32) -> Result<Surface> {
        let dmabuf = self.dmabufs.get(scanout as usize).and_then(Option::as_ref);
        let none = || Error::Protocol(format!("scanout {scanout} shows no dmabuf"));
        dmabuf.ok_or_else(none)?.picture()
    }

    fn display_info(&self) -> Vec<u8> {
        let mut answer = response_header(0x1101);
        for n in 0..MAX_SCANOUTS {
            let none = Mode {
                rect: Rect::default(),
                enabled: false,
            };
            let Mode { rect, enabled } = self.options.modes.get(n).copied().unwrap_or(none);
            for word in [rect.x, rect.y, rect.width, rect.height, enabled.into(), 0] {
                answer.extend_from_slice(&word.to_le_bytes());
            }
        }
        answer
    }

    fn answer(&mut self, request: Request, body: &[u8]) -> Result<()> {
        if !self.options.delay.is_zero() {
            std::thread::sleep(self.options.delay);
        }
        let mut message = Vec::with_capacity(HEADER_SIZE + body.len());
        for word in [request as u32, REPLY, body.len() as u32] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(body);
        let cut = self.options.cut_answer.filter(|(cut, _)| *cut == request);
        if let Some((_, len)) = cut {
            message.truncate(len);
        }
        // Answers are small and few: the socket has room for them, or its peer is gone.
        if let Some(mut socket) = self.socket.as_ref() {
            let written = socket.write_all(&message);
            match written {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Err(Error::Closed {
                        what: "answering as the display".into(),
                    });
                }
                other => other.map_err(Error::io("answering as the display"))?,
            }
        }
        if cut.is_some() {
            self.close();
        }
        Ok(())
    }

    fn read(
        &mut self,
        mut buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: &Deadline,
    ) -> Result<()> {
        let closed = || Error::Closed {
            what: "reading a display message".into(),
        };
        while !buffer.is_empty() {
            let Some(socket) = &self.socket else {
                return Err(closed());
            };
            let mut wanted = buffer.len();
            if let Some(limit) = self.options.close_after {
                wanted = wanted.min(limit.saturating_sub(self.bytes));
                if wanted == 0 {
                    return Err(closed());
                }
            }
            match receive_some(socket, &mut buffer[..wanted], fds) {
                Ok(0) | Err(Errno::CONNRESET) => return Err(closed()),
                Ok(n) => {
                    self.bytes += n;
                    buffer = &mut buffer[n..];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !deadline.ready(socket, PollFlags::IN)? {
                        return Err(deadline.missed("the rest of a display message"));
                    }
                }
                Err(e) => return Err(Error::os("reading a display message")(e)),
            }
        }
        Ok(())
    }
}

/// A `virtio_gpu_ctrl_hdr` that says `kind`.
fn response_header(kind: u32) -> Vec<u8> {
    let mut header = vec![0; CTRL_HDR_SIZE];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header
}

/// A `virtio_gpu_resp_edid`.
fn edid(block: &[u8]) -> Vec<u8> {
    let mut answer = response_header(0x1104);
    let block = &block[..block.len().min(EDID_SIZE)];
    answer.extend_from_slice(&(block.len() as u32).to_le_bytes());
    answer.extend_from_slice(&[0; 4]);
    answer.extend_from_slice(block);
    answer.resize(EDID_RESPONSE_SIZE, 0);
    answer
}
