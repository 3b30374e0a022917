// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the GPU's messages. Pixels are compared with the head's picture as they come: a GPU says that much changed
//! which did not.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use display_protocol::{CursorUpdate, Features, ResizeResult};
use rustix::io::{Errno, readv};

use crate::geometry::{Rect, Size};
use crate::vnc::damage::DamageMap;
use crate::vnc::head::{
    CursorShape, Head, HeadState, PIXEL_LEN, SENT_CURSOR_LEN, SharedFramebuffer,
};

use super::DisplayError;
use super::message::{HEAD_LEN, Message};

/// What a read counts at least against the budget, in bytes.
const LEAST_COST: usize = 4 << 10;
/// Most bytes of pixels that are read at once: few enough to stay in the processor's cache until they are compared.
const PIXELS: usize = 128 << 10;

/// What a message asks of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To say which protocol features the console has.
    Features,
    /// To use these protocol features.
    SetFeatures(Features),
    /// To take the answer to a resize.
    ResizeReply(ResizeResult),
}

/// How a read ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that was there has been read.
    Drained,
    /// There may be more.
    More,
    /// A message wants something.
    Request(Request),
}

/// Reads messages piece by piece.
pub(crate) struct Decoder {
    /// The head of a message, and perhaps bytes of the next one.
    head: [u8; HEAD_LEN],
    filled: usize,
    body: Body,
    /// Pixels that were read and are not drawn yet.
    pixels: Box<[u8]>,
    /// What `body` changed so far.
    changed: DamageMap,
}

/// What follows the message that was decoded last.
enum Body {
    None,
    Pixels {
        scanout: u32,
        rect: Rect,
        /// The head's picture when the message began; none if nobody looks at it.
        picture: Option<SharedFramebuffer>,
        done: usize,
    },
    Cursor {
        update: CursorUpdate,
        pixels: Box<[u8; SENT_CURSOR_LEN]>,
        done: usize,
    },
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            // The message's size, of 32 bits, includes it.
            Self::Pixels { rect, .. } => rect.area() as usize * PIXEL_LEN,
            Self::Cursor { .. } => SENT_CURSOR_LEN,
        }
    }

    fn done(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Pixels { done, .. } | Self::Cursor { done, .. } => *done,
        }
    }
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            head: [0; HEAD_LEN],
            filled: 0,
            body: Body::None,
            pixels: vec![0; PIXELS].into(),
            changed: DamageMap::new(Size::default()),
        }
    }

    /// Reads from `socket` and draws on `heads`, until nothing is left there, `budget` is used up or a message wants
    /// something. The bytes that are read are taken from `budget`, which may be exceeded by those of one system call.
    pub(crate) fn read(
        &mut self,
        socket: impl AsFd,
        heads: &mut [Head],
        budget: &mut usize,
    ) -> Result<Progress, DisplayError> {
        loop {
            if let Some(request) = self.take_messages(heads)? {
                return Ok(Progress::Request(request));
            }
            if *budget == 0 {
                return Ok(Progress::More);
            }
            let (wanted, read) = match self.read_some(&socket) {
                Ok(counts) => counts,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Progress::Drained),
                Err(e) => return Err(DisplayError::io("read from the GPU")(e)),
            };
            if read == 0 {
                return Err(DisplayError::Closed);
            }
            self.add(read, heads);
            // Small messages cost a system call each, too.
            *budget = budget.saturating_sub(read.max(LEAST_COST));
            if read < wanted {
                // The socket has no more, which another call need not find out.
                let request = self.take_messages(heads)?;
                return Ok(request.map_or(Progress::Drained, Progress::Request));
            }
        }
    }

    /// No more comes. What a message changed that has no end is kept for the next GPU's first picture.
    pub(crate) fn give_up(&mut self, heads: &mut [Head]) {
        let Body::Pixels {
            scanout,
            picture: Some(picture),
            ..
        } = &self.body
        else {
            return;
        };
        if let Some(head) = heads.get_mut(*scanout as usize) {
            head.add_torn(picture, &self.changed);
        }
    }

    /// One system call. Returns how many bytes there was room for, and how many came.
    fn read_some(&mut self, socket: impl AsFd) -> Result<(usize, usize), Errno> {
        let left = self.body.len() - self.body.done();
        let mut pieces: Vec<IoSliceMut<'_>> = Vec::new();
        match &mut self.body {
            Body::None => {}
            Body::Pixels { .. } => {
                let pixels = self.pixels.get_mut(..left.min(PIXELS));
                pieces.extend(pixels.map(IoSliceMut::new));
            }
            Body::Cursor { pixels, done, .. } => {
                pieces.extend(pixels.get_mut(*done..).map(IoSliceMut::new));
            }
        }
        let mut wanted = pieces.iter().map(|piece| piece.len()).sum();
        if wanted == left {
            // The next message's head comes with it.
            let head = self.head.get_mut(self.filled..).unwrap_or_default();
            wanted += head.len();
            pieces.push(IoSliceMut::new(head));
        }
        let read = readv(socket, &mut pieces)?;
        Ok((wanted, read))
    }

    /// Takes into account that so many bytes were read.
    fn add(&mut self, read: usize, heads: &mut [Head]) {
        let body = read.min(self.body.len() - self.body.done());
        self.filled += read - body;
        match &mut self.body {
            Body::None => {}
            Body::Pixels {
                rect,
                picture,
                done,
                ..
            } => {
                let pixels = self.pixels.get(..body).unwrap_or_default();
                if let Some(picture) = picture {
                    let mut picture = picture.borrow_mut();
                    picture.overwrite(*rect, *done, pixels, &mut self.changed);
                }
                *done += body;
            }
            Body::Cursor { done, .. } => *done += body,
        }
        if self.body.done() == self.body.len() {
            let body = std::mem::replace(&mut self.body, Body::None);
            finish(body, &self.changed, heads);
            self.changed.clear();
        }
    }

    /// Decodes the messages in the buffer; up to one with pixels, or one that wants something.
    fn take_messages(&mut self, heads: &mut [Head]) -> Result<Option<Request>, DisplayError> {
        while matches!(self.body, Body::None) {
            let bytes = self.head.get(..self.filled).unwrap_or_default();
            let Some((message, len)) = Message::decode(bytes)? else {
                break;
            };
            self.head.copy_within(len.min(self.filled).., 0);
            self.filled = self.filled.saturating_sub(len);
            match message {
                Message::GetProtocolFeatures => return Ok(Some(Request::Features)),
                Message::SetProtocolFeatures(features) => {
                    return Ok(Some(Request::SetFeatures(features)));
                }
                Message::ResizeReply(status) => return Ok(Some(Request::ResizeReply(status))),
                message => self.draw(message, heads)?,
            }
        }
        Ok(None)
    }

    fn draw(&mut self, message: Message, heads: &mut [Head]) -> Result<(), DisplayError> {
        match message {
            Message::Scanout { scanout, size } => {
                if let Some(head) = heads.get_mut(scanout as usize) {
                    head.set_scanout(size);
                }
            }
            Message::Cursor { position, visible } => {
                if let Some(head) = heads.get_mut(position.scanout as usize) {
                    head.move_cursor(visible, position.x, position.y);
                }
            }
            Message::CursorShape(update) => {
                self.body = Body::Cursor {
                    update,
                    pixels: Box::new([0; SENT_CURSOR_LEN]),
                    done: 0,
                };
            }
            Message::Update { scanout, rect } => {
                let head = heads.get(scanout as usize);
                let picture = head.map(|head| target(head, scanout, rect)).transpose()?;
                if !rect.is_empty() {
                    let picture = picture.flatten();
                    if let Some(picture) = &picture {
                        let size = picture.borrow().size();
                        if self.changed.size() != size {
                            self.changed = DamageMap::new(size);
                        }
                    }
                    self.body = Body::Pixels {
                        scanout,
                        rect,
                        picture,
                        done: 0,
                    };
                }
            }
            Message::GetProtocolFeatures
            | Message::SetProtocolFeatures(_)
            | Message::ResizeReply(_) => {}
        }
        Ok(())
    }
}

/// Where the pixels of a message go; nowhere if the picture is too large to be kept.
fn target(
    head: &Head,
    scanout: u32,
    rect: Rect,
) -> Result<Option<SharedFramebuffer>, DisplayError> {
    let picture = head.guest_picture();
    let size = match (&picture, head.state()) {
        (Some(picture), _) => picture.borrow().size(),
        (None, HeadState::TooLarge(size)) => size,
        (None, _) => return Err(DisplayError::NoPicture(scanout)),
    };
    if !rect.lies_within(size) {
        return Err(DisplayError::Outside {
            scanout,
            rect,
            size,
        });
    }
    Ok(picture)
}

/// Has the head show what came.
fn finish(body: Body, changed: &DamageMap, heads: &mut [Head]) {
    match body {
        Body::None => {}
        Body::Pixels {
            scanout, picture, ..
        } => {
            if let (Some(head), Some(_)) = (heads.get_mut(scanout as usize), picture) {
                head.add_damage(changed);
            }
        }
        Body::Cursor { update, pixels, .. } => {
            if let Some(head) = heads.get_mut(update.scanout as usize) {
                let shape = CursorShape::from_sent(&pixels, update.hot_x, update.hot_y);
                head.set_cursor_shape(shape, update.x, update.y);
            }
        }
    }
}

#[cfg(test)]
mod tests;
