// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pixels on their way to a viewer (RFC 6143, 7.7).

mod deflate;
mod palette;
mod raw;
mod tight;
mod tile;
mod zrle;

use tight::Tight;
use tile::Tile;
use zrle::Zrle;

use crate::server_message::write_rect_header;
use crate::translate::Translator;
use crate::{Encoding, FrameView, PixelFormat, Rect};

/// The level of zlib where a viewer names none. For palettes zlib-rs packs better at 7 than zlib at 6, which is what QEMU
/// has for ZRLE, in a third to a half of the time; 9 takes up to twice as long for nothing.
const DEFAULT_LEVEL: u32 = 7;
/// The same for pixels that are no palette's: only here zlib-rs looks for matches of three bytes, a pixel's length.
const DEFAULT_LEVEL_OF_PIXELS: u32 = 9;

/// Encodes rectangles for one viewer.
///
/// Its buffers are made when an encoding is first used, and used again for each rectangle: 0.5 MiB for ZRLE, 1.7 MiB
/// for Tight. What it appends is never much more than Raw: pixels x bytes of a pixel.
#[derive(Debug)]
pub struct Encoder {
    translator: Translator,
    compress_level: Option<u32>,
    tile: Box<Tile>,
    zrle: Zrle,
    tight: Tight,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// The most columns of a rectangle that stays one in Tight.
    pub const TIGHT_WIDTH_MAX: u16 = tight::WIDTH_MAX;
    /// The most pixels of a rectangle that stays one in Tight.
    pub const TIGHT_PIXELS_MAX: usize = tight::PIXELS_MAX;

    /// An encoder for a viewer that takes [`PixelFormat::XRGB8888`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            translator: Translator::new(PixelFormat::XRGB8888),
            compress_level: None,
            tile: Box::new(Tile::new()),
            zrle: Zrle::default(),
            tight: Tight::default(),
        }
    }

    /// What the viewer's `SetPixelFormat` asks for.
    pub fn set_format(&mut self, format: PixelFormat) {
        if format != self.translator.format() {
            self.translator = Translator::new(format);
        }
    }

    /// The format of pixels.
    #[must_use]
    pub fn format(&self) -> PixelFormat {
        self.translator.format()
    }

    /// The level that the viewer's `SetEncodings` names, 0 to 9; `None`: few bytes in little time.
    pub fn set_compress_level(&mut self, level: Option<u8>) {
        self.compress_level = level.map(|level| level.min(9).into());
    }

    /// Appends a rectangle of the frame, of which what lies outside the frame is cut off, and returns how many
    /// rectangles of the message it became: one, or in Tight more than one where it is too large. An encoding that is not known here is sent as Raw, which every
    /// viewer takes.
    #[must_use = "the rectangles are to be counted"]
    pub fn encode(
        &mut self,
        encoding: Encoding,
        rect: Rect,
        frame: &FrameView<'_>,
        out: &mut Vec<u8>,
    ) -> u16 {
        let rect = rect.intersection(frame.rect());
        if rect.is_empty() {
            return 0;
        }
        let level = self.compress_level;
        match encoding {
            Encoding::ZRLE => {
                write_rect_header(rect, Encoding::ZRLE, out);
                let (tile, from) = (&mut *self.tile, (rect, frame));
                self.zrle.encode(&self.translator, tile, from, level, out);
                1
            }
            Encoding::TIGHT => {
                let (tile, from) = (&mut *self.tile, (rect, frame));
                self.tight.encode(&self.translator, tile, from, level, out)
            }
            _ => {
                write_rect_header(rect, Encoding::RAW, out);
                raw::encode(&self.translator, rect, frame, out);
                1
            }
        }
    }
}

#[cfg(test)]
mod tests;
