// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What waits to be sent to a viewer.

use std::cell::Ref;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::geometry::Rect;
use crate::vnc::head::{Framebuffer, PIXEL_LEN, SharedFramebuffer};

/// Most pieces of one `sendmsg(2)` (`IOV_MAX`).
const MAX_PIECES: usize = 1024;

/// Bytes after which the next ones go into another piece.
const FULL: usize = 64 << 10;

/// Bytes that wait to be sent, in their order.
#[derive(Default)]
pub(super) struct Output {
    queue: VecDeque<Piece>,
    unsent: usize,
}

enum Piece {
    Bytes {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// Rows of a picture, as they are when they are sent. Pixels that change meanwhile are sent again with the update
    /// after this one.
    Rows {
        picture: SharedFramebuffer,
        rect: Rect,
        sent: usize,
    },
}

impl Piece {
    fn unsent(&self) -> usize {
        match self {
            Self::Bytes { bytes, sent } => bytes.len().saturating_sub(*sent),
            Self::Rows { rect, sent, .. } => row_bytes(*rect).saturating_sub(*sent),
        }
    }
}

fn row_bytes(rect: Rect) -> usize {
    rect.area() as usize * PIXEL_LEN
}

impl Output {
    /// How many bytes wait.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Bytes in memory of its own.
    #[cfg(feature = "fuzzing")]
    pub(super) fn kept(&self) -> usize {
        let pieces = self.queue.iter();
        let bytes = pieces.map(|piece| match piece {
            Piece::Bytes { bytes, .. } => bytes.len(),
            Piece::Rows { .. } => 0,
        });
        bytes.sum()
    }

    /// Has `write` append bytes.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let has_room = match self.queue.back() {
            // What is sent of a piece is freed with the piece.
            Some(Piece::Bytes { bytes, .. }) => bytes.len() < FULL,
            Some(Piece::Rows { .. }) | None => false,
        };
        if !has_room {
            self.queue.push_back(Piece::Bytes {
                bytes: Vec::new(),
                sent: 0,
            });
        }
        let mut nowhere = Vec::new();
        let bytes = match self.queue.back_mut() {
            Some(Piece::Bytes { bytes, .. }) => bytes,
            Some(Piece::Rows { .. }) | None => &mut nowhere,
        };
        let before = bytes.len();
        let result = write(bytes);
        self.unsent += bytes.len().saturating_sub(before);
        result
    }

    /// Adds the pixels of `rect`, which lies within `picture`, without a copy.
    pub(super) fn add_rows(&mut self, picture: &SharedFramebuffer, rect: Rect) {
        let fits = rect.lies_within(picture.borrow().size());
        debug_assert!(fits && !rect.is_empty(), "{rect:?}");
        self.unsent += row_bytes(rect);
        self.queue.push_back(Piece::Rows {
            picture: SharedFramebuffer::clone(picture),
            rect,
            sent: 0,
        });
    }

    /// Sends black for the rows that are still to be sent, so that their picture need not be kept.
    pub(super) fn forget_pixels(&mut self) {
        let pictures = self.queue.iter_mut().filter_map(|piece| match piece {
            Piece::Rows { picture, .. } => Some(picture),
            Piece::Bytes { .. } => None,
        });
        Framebuffer::blacken(pictures);
    }

    /// Sends as much as one system call takes. Returns whether the socket took all that was offered, so that more may
    /// be sent.
    ///
    /// # Errors
    /// As `sendmsg(2)`; a socket that is full is none.
    pub(super) fn send(&mut self, socket: impl AsFd) -> Result<bool, Errno> {
        let sent = {
            let pictures: Vec<Option<Ref<'_, Framebuffer>>> = self
                .queue
                .iter()
                .take(MAX_PIECES)
                .map(|piece| match piece {
                    Piece::Bytes { .. } => None,
                    Piece::Rows { picture, .. } => Some(picture.borrow()),
                })
                .collect();
            let mut slices = Vec::new();
            for (piece, picture) in self.queue.iter().zip(&pictures) {
                let room = MAX_PIECES - slices.len();
                match (piece, picture) {
                    (Piece::Bytes { bytes, sent }, _) => {
                        let rest = bytes.get(*sent..).unwrap_or_default();
                        slices.extend([rest].into_iter().take(room).map(IoSlice::new));
                    }
                    (Piece::Rows { rect, sent, .. }, Some(picture)) => {
                        slices.extend(picture.rows(*rect, *sent).take(room).map(IoSlice::new));
                    }
                    (Piece::Rows { .. }, None) => {}
                }
                if slices.len() >= MAX_PIECES {
                    break;
                }
            }
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            if offered == 0 {
                return Ok(false);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(socket, &slices, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => (sent, sent == offered),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => return Ok(true),
                Err(e) => return Err(e),
            }
        };
        let (sent, all) = sent;
        self.drop_sent(sent);
        Ok(all)
    }

    fn drop_sent(&mut self, mut count: usize) {
        self.unsent = self.unsent.saturating_sub(count);
        while let Some(piece) = self.queue.front_mut() {
            let taken = count.min(piece.unsent());
            count -= taken;
            match piece {
                Piece::Bytes { sent, .. } | Piece::Rows { sent, .. } => *sent += taken,
            }
            if piece.unsent() > 0 {
                break;
            }
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use crate::geometry::Size;

    use super::*;

    #[test]
    fn bytes_and_rows_arrive_in_their_order_through_a_small_socket() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let mut picture = Framebuffer::new(Size::new(300, 300));
        let all = Rect::from(picture.size());
        for (n, byte) in picture.rows_mut(all, 0).flatten().enumerate() {
            *byte = (n % 251) as u8;
        }
        let rect = Rect::from_edges(10, 20, 250, 280);
        let pixels: Vec<u8> = picture.rows(rect, 0).flatten().copied().collect();
        let picture = Rc::new(RefCell::new(picture));
        let mut output = Output::default();
        output.write(|bytes| bytes.extend_from_slice(b"before"));
        output.add_rows(&picture, rect);
        output.write(|bytes| bytes.extend_from_slice(b"aft"));
        output.write(|bytes| bytes.extend_from_slice(b"er"));
        let expected = [b"before".as_slice(), &pixels, b"after"].concat();
        assert_eq!(output.unsent(), expected.len());

        let mut received = Vec::new();
        let mut calls = 0;
        while output.unsent() > 0 {
            let before = output.unsent();
            output.send(&ours).unwrap();
            let sent = before - output.unsent();
            let mut piece = vec![0; sent];
            theirs.read_exact(&mut piece).unwrap();
            received.extend(piece);
            calls += 1;
        }
        assert!(received == expected);
        assert!(calls > 10, "{calls}");
        assert!(output.queue.is_empty());
    }

    #[test]
    fn picture_that_was_replaced_is_not_kept() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let size = Size::new(4, 2);
        let mut picture = Framebuffer::new(size);
        picture
            .rows_mut(size.into(), 0)
            .flatten()
            .for_each(|byte| *byte = 7);
        let picture = Rc::new(RefCell::new(picture));
        let mut output = Output::default();
        output.write(|bytes| bytes.push(1));
        output.add_rows(&picture, size.into());
        output.forget_pixels();
        assert_eq!(Rc::strong_count(&picture), 1);
        // As many bytes as were announced.
        assert!(output.send(&ours).unwrap());
        let mut received = [9; 33];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(received[..2], [1, 0]);
        assert!(received[1..].iter().all(|byte| *byte == 0));
        assert_eq!(output.unsent(), 0);
    }

    /// A viewer that does not read may have thousands of small ones queued: a picture for each would take up address space.
    #[test]
    fn pieces_of_a_picture_that_was_replaced_share_one() {
        let size = Size::new(4, 2);
        let picture = Rc::new(RefCell::new(Framebuffer::new(size)));
        let mut output = Output::default();
        for _ in 0..3 {
            output.write(|bytes| bytes.push(1));
            output.add_rows(&picture, size.into());
        }
        output.forget_pixels();
        let pictures = output.queue.iter().filter_map(|piece| match piece {
            Piece::Rows { picture, .. } => Some(picture),
            Piece::Bytes { .. } => None,
        });
        assert!(
            pictures
                .clone()
                .all(|picture| Rc::strong_count(picture) == 3)
        );
        assert_eq!(pictures.count(), 3);
    }

    #[test]
    fn full_socket_is_no_error_and_a_closed_one_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut output = Output::default();
        output.write(|bytes| bytes.resize(16 << 20, 1));
        while output.send(&ours).unwrap() {}
        assert!(output.unsent() > 0);
        assert!(!output.send(&ours).unwrap());
        drop(theirs);
        assert!(output.send(&ours).is_err());
    }
}
