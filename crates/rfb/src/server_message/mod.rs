// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of a server (RFC 6143, 7.6, and the community wiki's rfbproto.rst): written, and read.

mod pseudo;
mod reader;

pub use pseudo::{
    DesktopSizeReason, DesktopSizeStatus, LedState, PseudoRect, write_cursor,
    write_cursor_with_alpha, write_desktop_name, write_desktop_size, write_extended_desktop_size,
    write_extended_mouse_buttons, write_last_rect, write_qemu_extended_key_event,
    write_qemu_led_state, write_vmware_led_state,
};
pub use reader::{ServerMessage, read_rect_header};

use crate::{Channel, Encoding, PixelFormat, Rect};

/// Types of messages.
mod message_type {
    pub(super) const FRAMEBUFFER_UPDATE: u8 = 0;
    pub(super) const SET_COLOUR_MAP_ENTRIES: u8 = 1;
    pub(super) const BELL: u8 = 2;
    pub(super) const SERVER_CUT_TEXT: u8 = 3;
    pub(super) const END_OF_CONTINUOUS_UPDATES: u8 = 150;
    pub(super) const FENCE: u8 = crate::Fence::MESSAGE_TYPE;
}

/// The number of rectangles that says: as many as come before LastRect (wiki: LastRect pseudo-encoding).
pub const UNTIL_LAST_RECT: u16 = u16::MAX;

/// Appends the header of `FramebufferUpdate` (7.6.1), which `count` rectangles follow; [`UNTIL_LAST_RECT`]: all up
/// to [`write_last_rect`].
pub fn write_update_header(count: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[message_type::FRAMEBUFFER_UPDATE, 0]);
    out.extend_from_slice(&count.to_be_bytes());
}

/// Appends the header of a rectangle (7.6.1).
pub fn write_rect_header(rect: Rect, encoding: Encoding, out: &mut Vec<u8>) {
    rect.write(out);
    out.extend_from_slice(&encoding.0.to_be_bytes());
}

/// Appends a rectangle whose pixels the viewer has, at `from_x`, `from_y` (7.7.2).
pub fn write_copy_rect(rect: Rect, from_x: u16, from_y: u16, out: &mut Vec<u8>) {
    write_rect_header(rect, Encoding::COPY_RECT, out);
    out.extend_from_slice(&from_x.to_be_bytes());
    out.extend_from_slice(&from_y.to_be_bytes());
}

/// A `FramebufferUpdate` whose rectangles are counted while they are appended.
#[derive(Debug)]
#[must_use = "finish() writes the number of rectangles"]
pub struct Update {
    start: usize,
    count: u16,
}

impl Update {
    /// Appends a header; the rectangles are to be appended behind it.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let start = out.len();
        write_update_header(0, out);
        Self { start, count: 0 }
    }

    /// Counts rectangles that were appended. False: they are too many for one message, which must not be sent.
    #[must_use]
    pub fn count(&mut self, rects: u16) -> bool {
        match self.count.checked_add(rects) {
            Some(count) if count < UNTIL_LAST_RECT => {
                self.count = count;
                true
            }
            _ => false,
        }
    }

    /// Writes the number of rectangles into the header, and returns it. Without any the message is taken back.
    pub fn finish(self, out: &mut Vec<u8>) -> u16 {
        let at = self.start + 2;
        if self.count == 0 {
            out.truncate(self.start);
        } else if let Some(count) = out.get_mut(at..at + 2) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.count
    }
}

/// Appends `SetColourMapEntries` (7.6.2) with the fixed map of viewers without true colour: its 256 indices are the
/// pixels of [`PixelFormat::BGR233`].
pub fn write_colour_map(out: &mut Vec<u8>) {
    out.extend_from_slice(&[message_type::SET_COLOUR_MAP_ENTRIES, 0, 0, 0, 1, 0]);
    for index in 0..=u8::MAX {
        for Channel { max, shift } in PixelFormat::BGR233.channels() {
            let value = u32::from((u16::from(index) >> shift) & max);
            let max = u32::from(max);
            let value = (value * u32::from(u16::MAX) + max / 2) / max;
            let value = u16::try_from(value).unwrap_or(u16::MAX);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends `Bell` (7.6.3).
pub fn write_bell(out: &mut Vec<u8>) {
    out.push(message_type::BELL);
}

/// Appends `EndOfContinuousUpdates` (wiki).
pub fn write_end_of_continuous_updates(out: &mut Vec<u8>) {
    out.push(message_type::END_OF_CONTINUOUS_UPDATES);
}

#[cfg(test)]
mod tests;
