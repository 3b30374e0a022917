//! Pixels on their way to a viewer (RFC 6143, 7.7).

mod raw;

use crate::server_message::write_rect_header;
use crate::translate::Translator;
use crate::{Encoding, FrameView, PixelFormat, Rect};

/// Encodes rectangles for one viewer.
#[derive(Debug)]
pub struct Encoder {
    translator: Translator,
    compress_level: Option<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder for a viewer that takes [`PixelFormat::XRGB8888`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            translator: Translator::new(PixelFormat::XRGB8888),
            compress_level: None,
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

    /// The level that the viewer's `SetEncodings` names.
    pub fn set_compress_level(&mut self, level: Option<u8>) {
        self.compress_level = level;
    }

    /// Appends a rectangle of the frame, of which what lies outside the frame is cut off, and returns how many
    /// rectangles of the message it became. An encoding that is not known here is sent as Raw, which every
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
        let _ = encoding;
        write_rect_header(rect, Encoding::RAW, out);
        raw::encode(&self.translator, rect, frame, out);
        1
    }
}
