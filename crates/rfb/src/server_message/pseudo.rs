// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rectangles without pixels of the framebuffer (RFC 6143, 7.8).

use std::io::Read;

use super::write_rect_header;
use crate::read;
use crate::translate::{Translator, from_wire, wire_pixel};
use crate::{Cursor, Encoding, PixelFormat, Rect, Screen, ServerMessageError};

/// Why a viewer is told of a size (wiki: ExtendedDesktopSize pseudo-encoding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DesktopSizeReason {
    /// The server changed it.
    Server = 0,
    /// This viewer asked for it.
    ThisViewer = 1,
    /// Another viewer asked for it.
    OtherViewer = 2,
}

/// What became of a viewer's `SetDesktopSize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DesktopSizeStatus {
    /// Done.
    NoError = 0,
    /// Resizing is not allowed.
    Prohibited = 1,
    /// There is no memory for it.
    OutOfResources = 2,
    /// The screens lie outside, or are not to be had.
    InvalidLayout = 3,
    /// Somebody else decides; the new size comes later, or never.
    Forwarded = 4,
}

/// Which locks of the keyboard are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedState {
    /// Scroll Lock.
    pub scroll: bool,
    /// Num Lock.
    pub num: bool,
    /// Caps Lock.
    pub caps: bool,
}

impl LedState {
    fn bits(self) -> u8 {
        u8::from(self.scroll) | u8::from(self.num) << 1 | u8::from(self.caps) << 2
    }

    fn from_bits(bits: u8) -> Self {
        Self {
            scroll: bits & 1 != 0,
            num: bits & 2 != 0,
            caps: bits & 4 != 0,
        }
    }
}

/// Appends DesktopSize (7.8.2): the framebuffer's size from the end of the update on.
pub fn write_desktop_size(width: u16, height: u16, out: &mut Vec<u8>) {
    let rect = Rect::of_size(width, height);
    write_rect_header(rect, Encoding::DESKTOP_SIZE, out);
}

/// Appends ExtendedDesktopSize (wiki). Of more than 255 screens the first are written.
pub fn write_extended_desktop_size(
    reason: DesktopSizeReason,
    status: DesktopSizeStatus,
    (width, height): (u16, u16),
    screens: &[Screen],
    out: &mut Vec<u8>,
) {
    let rect = Rect::new(reason as u16, status as u16, width, height);
    write_rect_header(rect, Encoding::EXTENDED_DESKTOP_SIZE, out);
    let count = u8::try_from(screens.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[count, 0, 0, 0]);
    for screen in screens.iter().take(count.into()) {
        screen.write(out);
    }
}

/// Appends Cursor (7.8.1) in the viewer's format: pixels are shown where alpha is at least a half.
pub fn write_cursor(cursor: &Cursor, format: PixelFormat, out: &mut Vec<u8>) {
    write_rect_header(cursor.rect(), Encoding::CURSOR, out);
    let translator = Translator::new(format);
    for pixel in cursor.pixels() {
        let [blue, green, red, alpha] = pixel.to_le_bytes();
        let plain = [blue, green, red].map(|colour| without_alpha(colour, alpha));
        translator.append_row(&wire_pixel(&plain).to_le_bytes(), out);
    }
    for row in cursor.pixels().chunks(usize::from(cursor.width()).max(1)) {
        for eight in row.chunks(8) {
            let bits = eight.iter().zip((0..8).rev());
            out.push(bits.fold(0, |byte, (pixel, bit)| {
                let is_shown = pixel >> 31;
                byte | u8::from(is_shown != 0) << bit
            }));
        }
    }
}

fn without_alpha(colour: u8, alpha: u8) -> u8 {
    if alpha == 0 {
        return 0;
    }
    let colour = (u16::from(colour) * 255 + u16::from(alpha) / 2) / u16::from(alpha);
    u8::try_from(colour).unwrap_or(u8::MAX)
}

/// Appends Cursor With Alpha (wiki).
pub fn write_cursor_with_alpha(cursor: &Cursor, out: &mut Vec<u8>) {
    write_rect_header(cursor.rect(), Encoding::CURSOR_WITH_ALPHA, out);
    out.extend_from_slice(&Encoding::RAW.0.to_be_bytes());
    for pixel in cursor.pixels() {
        let [blue, green, red, alpha] = pixel.to_le_bytes();
        out.extend_from_slice(&[red, green, blue, alpha]);
    }
}

/// Appends DesktopName (wiki). At most 4096 bytes are written.
pub fn write_desktop_name(name: &str, out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::DESKTOP_NAME, out);
    crate::handshake::write_text(out, name);
}

/// Appends QEMU LED State (wiki).
pub fn write_qemu_led_state(leds: LedState, out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::QEMU_LED_STATE, out);
    out.push(leds.bits());
}

/// Appends VMware LED State (wiki).
pub fn write_vmware_led_state(leds: LedState, out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::VMWARE_LED_STATE, out);
    out.extend_from_slice(&u32::from(leds.bits()).to_be_bytes());
}

/// Appends QEMU Extended Key Event (wiki): the server takes keys by their positions.
pub fn write_qemu_extended_key_event(out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::QEMU_EXTENDED_KEY_EVENT, out);
}

/// Appends Extended Mouse Buttons (wiki): the server takes buttons from the eighth on.
pub fn write_extended_mouse_buttons(out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::EXTENDED_MOUSE_BUTTONS, out);
}

/// Appends LastRect (wiki).
pub fn write_last_rect(out: &mut Vec<u8>) {
    write_rect_header(Rect::default(), Encoding::LAST_RECT, out);
}

/// A rectangle without pixels of the framebuffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PseudoRect {
    /// The framebuffer has another size.
    DesktopSize {
        /// Width.
        width: u16,
        /// Height.
        height: u16,
    },
    /// The framebuffer's size and screens; or why they stay as they are.
    ExtendedDesktopSize {
        /// [`DesktopSizeReason`] as a number.
        reason: u16,
        /// [`DesktopSizeStatus`] as a number.
        status: u16,
        /// Width.
        width: u16,
        /// Height.
        height: u16,
        /// Screens.
        screens: Vec<Screen>,
    },
    /// The pointer's shape, from either encoding.
    Cursor(Cursor),
    /// The desktop's name.
    DesktopName(String),
    /// The keyboard's locks, from either encoding.
    LedState(LedState),
    /// The server takes [`ClientMessage::QemuExtendedKeyEvent`](crate::ClientMessage::QemuExtendedKeyEvent).
    QemuExtendedKeyEvent,
    /// The server takes buttons from the eighth on.
    ExtendedMouseButtons,
    /// The update ends here.
    LastRect,
}

const NAME_MAX: u32 = 4096;

impl PseudoRect {
    /// Reads what follows the header of a rectangle; `None` where the encoding is one of pixels or unknown.
    ///
    /// # Errors
    /// Where reading fails, or a cursor is too large.
    pub fn read(
        reader: &mut impl Read,
        rect: Rect,
        encoding: Encoding,
        format: PixelFormat,
    ) -> Result<Option<Self>, ServerMessageError> {
        let Rect { width, height, .. } = rect;
        Ok(Some(match encoding {
            Encoding::DESKTOP_SIZE => Self::DesktopSize { width, height },
            Encoding::EXTENDED_DESKTOP_SIZE => {
                let [count, _, _, _] = read::array(reader)?;
                let mut screens = Vec::new();
                for _ in 0..count {
                    screens.push(Screen::read(read::array(reader)?));
                }
                Self::ExtendedDesktopSize {
                    reason: rect.x,
                    status: rect.y,
                    width,
                    height,
                    screens,
                }
            }
            Encoding::CURSOR => Self::Cursor(read_cursor(reader, rect, format)?),
            Encoding::CURSOR_WITH_ALPHA => Self::Cursor(read_cursor_with_alpha(reader, rect)?),
            Encoding::DESKTOP_NAME => {
                let len = read::u32(reader)?;
                let name = read::cut(reader, len, NAME_MAX)?;
                Self::DesktopName(String::from_utf8_lossy(&name).into_owned())
            }
            Encoding::QEMU_LED_STATE => Self::LedState(LedState::from_bits(read::u8(reader)?)),
            Encoding::VMWARE_LED_STATE => {
                let [_, _, _, bits] = read::array(reader)?;
                Self::LedState(LedState::from_bits(bits))
            }
            Encoding::QEMU_EXTENDED_KEY_EVENT => Self::QemuExtendedKeyEvent,
            Encoding::EXTENDED_MOUSE_BUTTONS => Self::ExtendedMouseButtons,
            Encoding::LAST_RECT => Self::LastRect,
            _ => return Ok(None),
        }))
    }
}

fn check_size(rect: Rect) -> Result<(), ServerMessageError> {
    if rect.width > Cursor::SIZE_MAX || rect.height > Cursor::SIZE_MAX {
        return Err(ServerMessageError::TooLarge {
            what: "cursor",
            rect,
        });
    }
    Ok(())
}

fn cursor_of(rect: Rect, pixels: Vec<u32>) -> Result<Cursor, ServerMessageError> {
    let cursor = Cursor::new((rect.x, rect.y), rect.width, rect.height, pixels);
    cursor.ok_or(ServerMessageError::Broken {
        encoding: "cursor",
        reason: "it has not as many pixels as its size says",
    })
}

fn read_cursor(
    reader: &mut impl Read,
    rect: Rect,
    format: PixelFormat,
) -> Result<Cursor, ServerMessageError> {
    check_size(rect)?;
    let pixel_len = format.bytes_per_pixel();
    let mut bytes = vec![0; rect.area() * pixel_len];
    reader.read_exact(&mut bytes)?;
    let colours = bytes.chunks_exact(pixel_len);
    let colours = colours.map(|bytes| from_wire(format, wire_pixel(bytes)));
    let row_len = usize::from(rect.width).div_ceil(8);
    let mut mask = vec![0; row_len * usize::from(rect.height)];
    reader.read_exact(&mut mask)?;
    let rows = mask.chunks_exact(row_len.max(1));
    let shown = rows.flat_map(|row| {
        let bits = row
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 != 0));
        bits.take(rect.width.into())
    });
    let pixels = colours
        .zip(shown)
        .map(|(colour, shown)| if shown { colour | 0xff00_0000 } else { 0 });
    cursor_of(rect, pixels.collect())
}

fn read_cursor_with_alpha(
    reader: &mut impl Read,
    rect: Rect,
) -> Result<Cursor, ServerMessageError> {
    let encoding = Encoding(i32::from_be_bytes(read::array(reader)?));
    if encoding != Encoding::RAW {
        return Err(ServerMessageError::UnknownEncoding(encoding));
    }
    check_size(rect)?;
    let mut bytes = vec![0; rect.area() * 4];
    reader.read_exact(&mut bytes)?;
    let pixels = bytes.chunks_exact(4).map(|bytes| {
        let [red, green, blue, alpha] = wire_pixel(bytes).to_le_bytes();
        u32::from_le_bytes([blue, green, red, alpha])
    });
    cursor_of(rect, pixels.collect())
}
