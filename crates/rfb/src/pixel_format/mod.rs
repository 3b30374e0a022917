// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a viewer wants its pixels (RFC 6143, 7.4).

/// Why a pixel format cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PixelFormatError {
    /// RFC 6143 knows 8, 16 and 32 bits.
    #[error("a pixel has {0} bits; RFB has 8, 16 or 32")]
    BitsPerPixel(u8),
    /// A colour reaches beyond the pixel.
    #[error(
        "a colour of at most {max} does not fit a pixel of {bits} bits when shifted by {shift}"
    )]
    Colour {
        /// Greatest value.
        max: u16,
        /// Shift in bits.
        shift: u8,
        /// Bits of a pixel.
        bits: u8,
    },
}

/// A colour within a pixel: `value << shift`, `value` being 0 to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Greatest value, by definition 2^n - 1; other values are served too.
    pub max: u16,
    /// Shift in bits, within the pixel as a number.
    pub shift: u8,
}

impl Channel {
    /// The channel, if it fits a pixel of so many bits. A channel without bits has no shift.
    fn checked(self, bits: u8) -> Result<Self, PixelFormatError> {
        if self.max == 0 {
            return Ok(Self { max: 0, shift: 0 });
        }
        let room = u32::from(bits).saturating_sub(u32::from(self.shift));
        let needed = u16::BITS - self.max.leading_zeros();
        if needed > room {
            return Err(PixelFormatError::Colour {
                max: self.max,
                shift: self.shift,
                bits,
            });
        }
        Ok(self)
    }

    /// `value`, one of 0 to 255, as this channel has it.
    pub(crate) fn of_8_bits(self, value: u8) -> u32 {
        let max = u32::from(self.max);
        ((u32::from(value) * max + 127) / 255) << self.shift
    }

    /// This channel of a pixel, as one of 0 to 255.
    pub(crate) fn to_8_bits(self, pixel: u32) -> u8 {
        let max = u32::from(self.max);
        if max == 0 {
            return 0;
        }
        // By definition the bits of `max` are those of the channel.
        let value = ((pixel >> self.shift) & max).min(max);
        u8::try_from((value * 255 + max / 2) / max).unwrap_or(u8::MAX)
    }
}

/// `PIXEL_FORMAT`: always checked, so it can be encoded without looking at it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    bits_per_pixel: u8,
    depth: u8,
    big_endian: bool,
    colour_map: bool,
    red: Channel,
    green: Channel,
    blue: Channel,
}

impl PixelFormat {
    /// Bytes of a format in a message.
    pub const LEN: usize = 16;

    /// 32 bits, 8 a colour: bytes B, G, R, X. What framebuffers of this crate have.
    pub const XRGB8888: Self = Self {
        bits_per_pixel: 32,
        depth: 24,
        big_endian: false,
        colour_map: false,
        red: Channel {
            max: 255,
            shift: 16,
        },
        green: Channel { max: 255, shift: 8 },
        blue: Channel { max: 255, shift: 0 },
    };

    /// 16 bits, little-endian: 5 of red, 6 of green, 5 of blue.
    pub const RGB565: Self = Self {
        bits_per_pixel: 16,
        depth: 16,
        big_endian: false,
        colour_map: false,
        red: Channel { max: 31, shift: 11 },
        green: Channel { max: 63, shift: 5 },
        blue: Channel { max: 31, shift: 0 },
    };

    /// 8 bits: 2 of blue, 3 of green, 3 of red.
    pub const BGR233: Self = Self {
        bits_per_pixel: 8,
        depth: 8,
        big_endian: false,
        colour_map: false,
        red: Channel { max: 7, shift: 0 },
        green: Channel { max: 7, shift: 3 },
        blue: Channel { max: 3, shift: 6 },
    };

    /// A true-colour format.
    ///
    /// # Errors
    /// Where a pixel has not 8, 16 or 32 bits, or a colour does not fit it.
    pub fn true_colour(
        bits_per_pixel: u8,
        depth: u8,
        big_endian: bool,
        [red, green, blue]: [Channel; 3],
    ) -> Result<Self, PixelFormatError> {
        if !matches!(bits_per_pixel, 8 | 16 | 32) {
            return Err(PixelFormatError::BitsPerPixel(bits_per_pixel));
        }
        Ok(Self {
            bits_per_pixel,
            depth,
            big_endian,
            colour_map: false,
            red: red.checked(bits_per_pixel)?,
            green: green.checked(bits_per_pixel)?,
            blue: blue.checked(bits_per_pixel)?,
        })
    }

    /// Reads a format.
    ///
    /// A viewer that asks for a colour map gets the fixed one of [`write_colour_map`](crate::server_message::write_colour_map),
    /// whose indices are the pixels of [`PixelFormat::BGR233`].
    ///
    /// # Errors
    /// Where a pixel has not 8, 16 or 32 bits, or a colour does not fit it.
    pub fn read(bytes: [u8; Self::LEN]) -> Result<Self, PixelFormatError> {
        let [
            bits_per_pixel,
            depth,
            big_endian,
            true_colour,
            r0,
            r1,
            g0,
            g1,
            b0,
            b1,
            red_shift,
            green_shift,
            blue_shift,
            ..,
        ] = bytes;
        let big_endian = big_endian != 0;
        if true_colour == 0 {
            let Self {
                red, green, blue, ..
            } = Self::BGR233;
            let format = Self::true_colour(bits_per_pixel, depth, big_endian, [red, green, blue])?;
            return Ok(Self {
                colour_map: true,
                ..format
            });
        }
        let channel = |max, shift| Channel {
            max: u16::from_be_bytes(max),
            shift,
        };
        Self::true_colour(
            bits_per_pixel,
            depth,
            big_endian,
            [
                channel([r0, r1], red_shift),
                channel([g0, g1], green_shift),
                channel([b0, b1], blue_shift),
            ],
        )
    }

    /// Appends the format.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[
            self.bits_per_pixel,
            self.depth,
            u8::from(self.big_endian),
            u8::from(!self.colour_map),
        ]);
        let channels = self.channels();
        for channel in channels {
            out.extend_from_slice(&channel.max.to_be_bytes());
        }
        out.extend(channels.map(|channel| channel.shift));
        out.extend_from_slice(&[0; 3]);
    }

    /// Bits of a pixel: 8, 16 or 32.
    #[must_use]
    pub fn bits_per_pixel(self) -> u8 {
        self.bits_per_pixel
    }

    /// Bytes of a pixel: 1, 2 or 4.
    #[must_use]
    pub fn bytes_per_pixel(self) -> usize {
        usize::from(self.bits_per_pixel / 8)
    }

    /// Whether the viewer must be sent the colour map.
    #[must_use]
    pub fn is_colour_map(self) -> bool {
        self.colour_map
    }

    /// Whether pixels have their most significant byte first.
    #[must_use]
    pub fn is_big_endian(self) -> bool {
        self.big_endian
    }

    /// Red, green, blue.
    #[must_use]
    pub fn channels(self) -> [Channel; 3] {
        [self.red, self.green, self.blue]
    }

    /// Whether its pixels are those of [`PixelFormat::XRGB8888`], the unused byte aside.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.bits_per_pixel == 32
            && !self.big_endian
            && !self.colour_map
            && self.channels() == Self::XRGB8888.channels()
    }

    /// Which bytes of a pixel a `CPIXEL` has (RFC 6143, 7.7.5): all of them, or the three that carry colours.
    #[must_use]
    pub(crate) fn cpixel_bytes(self) -> std::ops::Range<usize> {
        let all = 0..self.bytes_per_pixel();
        if self.bits_per_pixel != 32 || self.depth > 24 || self.colour_map {
            return all;
        }
        let used = self.channels().iter().fold(0, |used, channel| {
            used | (u32::from(channel.max) << channel.shift)
        });
        // As the four bytes lie in a message.
        let used = if self.big_endian {
            used.to_be_bytes()
        } else {
            used.to_le_bytes()
        };
        match used {
            [_, _, _, 0] => 0..3,
            [0, _, _, _] => 1..4,
            _ => all,
        }
    }

    /// Whether Tight's `TPIXEL` is three bytes, red, green, blue (community wiki: Tight encoding).
    #[must_use]
    pub(crate) fn has_tpixel(self) -> bool {
        self.bits_per_pixel == 32
            && self.depth == 24
            && !self.colour_map
            && self.channels().iter().all(|channel| channel.max == 255)
    }
}

#[cfg(test)]
mod tests;
