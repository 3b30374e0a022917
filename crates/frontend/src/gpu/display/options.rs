// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of a display.

use std::time::Duration;

use super::super::Rect;
use super::Request;

/// A size a display wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Where it lies among the others, and its size.
    pub rect: Rect,
    /// Whether it is shown at all.
    pub enabled: bool,
}

/// What a display answers to GET_EDID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdidAnswer {
    /// The protocol feature is not offered, and a question all the same is not answered: as QEMU
    /// 7.2.
    NotOffered,
    /// By scanout. A scanout beyond them is not answered: as QEMU does beyond its `max_outputs`.
    Blocks(Vec<Vec<u8>>),
}

/// How a display behaves.
#[derive(Clone, Debug)]
pub struct DisplayOptions {
    /// One for each scanout.
    pub modes: Vec<Mode>,
    /// What is answered to GET_EDID.
    pub edid: EdidAnswer,
    /// Whether DMABUF_SCANOUT2 is offered.
    pub dmabuf2: bool,
    /// How long it takes to answer.
    pub delay: Duration,
    /// Whether DMABUF_UPDATE is answered by [`super::Display::answer_updates`] only, all else as it comes.
    pub hold_updates: bool,
    /// Closes the socket after as many bytes were read, in the middle of a message perhaps.
    pub close_after: Option<usize>,
    /// Answers this request with as many bytes of the right answer only, then closes the socket.
    pub cut_answer: Option<(Request, usize)>,
    /// Size of the socket's buffers in bytes, both ways; the system's default if none. A small one
    /// makes a display that does not read felt sooner.
    pub buffer: Option<usize>,
    /// Whether pixels are drawn, or only read: for measurements.
    pub draw: bool,
    /// Whether flags that mean nothing are an error: QEMU's C program sends what its heap held.
    pub strict: bool,
}

impl Default for DisplayOptions {
    /// One scanout of 1024x768, as QEMU 7.2 (no EDID).
    fn default() -> Self {
        Self::with_modes(&[(1024, 768)])
    }
}

impl DisplayOptions {
    /// Scanouts of these sizes, side by side.
    pub fn with_modes(sizes: &[(u32, u32)]) -> Self {
        let mut x = 0;
        let mode = |&(width, height): &(u32, u32)| {
            let rect = Rect::new(x, 0, width, height);
            x += width;
            Mode {
                rect,
                enabled: true,
            }
        };
        Self {
            modes: sizes.iter().map(mode).collect(),
            edid: EdidAnswer::NotOffered,
            dmabuf2: false,
            delay: Duration::ZERO,
            hold_updates: false,
            close_after: None,
            cut_answer: None,
            buffer: None,
            draw: true,
            strict: true,
        }
    }
}
