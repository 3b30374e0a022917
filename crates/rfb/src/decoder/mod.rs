// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pixels that a server sent (RFC 6143, 7.7).

mod inflate;
mod tight;
mod zrle;

use std::io::Read;

use tight::Tight;
use zrle::Zrle;

use crate::frame::PIXEL_LEN;
use crate::read;
use crate::translate::{from_wire, wire_pixel};
use crate::{Encoding, Frame, PixelFormat, Rect, ServerMessageError};

/// Decodes rectangles of one server, which may send anything: it keeps less than 1 MiB, whatever comes.
#[derive(Debug)]
pub struct Decoder {
    format: PixelFormat,
    row: Vec<u8>,
    zrle: Zrle,
    tight: Tight,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(PixelFormat::XRGB8888)
    }
}

impl Decoder {
    /// A decoder of pixels in that format.
    #[must_use]
    pub fn new(format: PixelFormat) -> Self {
        Self {
            format,
            row: Vec::new(),
            zrle: Zrle::new(),
            tight: Tight::default(),
        }
    }

    /// From now on pixels have another format.
    pub fn set_format(&mut self, format: PixelFormat) {
        self.format = format;
    }

    /// The format of pixels.
    #[must_use]
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Reads what follows the header of a rectangle of pixels, and draws it.
    ///
    /// # Errors
    /// Where reading fails, the rectangle lies outside the frame, or its bytes make no sense; parts of it may be
    /// drawn then. The connection cannot go on.
    pub fn rect(
        &mut self,
        reader: &mut impl Read,
        rect: Rect,
        encoding: Encoding,
        frame: &mut Frame,
    ) -> Result<(), ServerMessageError> {
        if !rect.fits(frame.width(), frame.height()) {
            return Err(ServerMessageError::Outside(rect));
        }
        match encoding {
            Encoding::RAW => self.raw(reader, rect, frame),
            Encoding::COPY_RECT => {
                let (from_x, from_y) = (read::u16(reader)?, read::u16(reader)?);
                if !frame.copy_within(from_x, from_y, rect) {
                    let (x, y) = (from_x, from_y);
                    return Err(ServerMessageError::Outside(Rect { x, y, ..rect }));
                }
                Ok(())
            }
            Encoding::ZRLE => self.zrle.rect(reader, rect, self.format, frame),
            Encoding::TIGHT => self.tight.rect(reader, rect, self.format, frame),
            unknown => Err(ServerMessageError::UnknownEncoding(unknown)),
        }
    }

    fn raw(
        &mut self,
        reader: &mut impl Read,
        rect: Rect,
        frame: &mut Frame,
    ) -> Result<(), ServerMessageError> {
        let pixel_len = self.format.bytes_per_pixel();
        self.row.resize(usize::from(rect.width) * pixel_len, 0);
        for row in frame.rows_mut(rect) {
            reader.read_exact(&mut self.row)?;
            let wire = self.row.chunks_exact(pixel_len);
            for (to, wire) in row.chunks_exact_mut(PIXEL_LEN).zip(wire) {
                let pixel = from_wire(self.format, wire_pixel(wire));
                to.copy_from_slice(&pixel.to_le_bytes());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
