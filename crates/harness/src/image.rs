// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pictures of a guest's screen.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use guest::animation::Animation;

/// A picture of 0x00RRGGBB pixels, row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// All pixels.
    pub pixels: Vec<u32>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = guest::testcard::checksum(self.pixels.iter().copied());
        write!(
            f,
            "Image({}x{}, checksum {sum:016x})",
            self.width, self.height
        )
    }
}

impl Image {
    /// The test card as the guest draws it.
    #[must_use]
    pub fn test_card(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            pixels: guest::testcard::draw(width, height),
        }
    }

    /// The picture of the guest's animation after this frame.
    #[must_use]
    pub fn animation(frame: u64, width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            pixels: Animation::default().picture(frame, width, height),
        }
    }

    /// Reads a binary portable pixmap ("P6"), QEMU's `screendump` format.
    ///
    /// # Errors
    ///
    /// If it is none with 8 bits a channel, or cut short.
    pub fn from_ppm(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut rest = bytes;
        let mut header = Vec::new();
        while header.len() < 4 {
            let end = rest
                .iter()
                .position(u8::is_ascii_whitespace)
                .context("no ppm header")?;
            let (word, tail) = rest.split_at(end);
            header.push(std::str::from_utf8(word).context("no ppm header")?);
            rest = tail.get(1..).unwrap_or_default();
        }
        let ["P6", width, height, "255"] = header[..] else {
            bail!("no ppm of 8 bits a channel: {header:?}");
        };
        let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
        let row = usize::try_from(u64::from(width) * 3)?;
        let rows = usize::try_from(height)?;
        // QEMU pads the rows to 4 bytes, which the format does not know.
        let padded = row.next_multiple_of(4);
        let stride = if rest.len() == padded * rows {
            padded
        } else {
            row
        };
        ensure!(
            rest.len() == stride * rows,
            "{} bytes instead of {width}x{height}",
            rest.len()
        );
        let pixels = rest
            .chunks_exact(stride.max(1))
            .flat_map(|line| chunks(&line[..row]))
            .map(|&[red, green, blue]| u32::from_be_bytes([0, red, green, blue]))
            .collect();
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// A part of the picture; what lies outside is left out.
    #[must_use]
    pub fn crop(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        let (right, bottom) = (self.width.min(x + width), self.height.min(y + height));
        let pixels =
            (y..bottom).flat_map(|row| (x..right).filter_map(move |col| self.get(col, row)));
        let pixels = pixels.collect();
        Self {
            width: right.saturating_sub(x),
            height: bottom.saturating_sub(y),
            pixels,
        }
    }

    /// The colour of one pixel.
    #[must_use]
    pub fn get(&self, x: u32, y: u32) -> Option<u32> {
        let index = u64::from(y) * u64::from(self.width) + u64::from(x);
        self.pixels
            .get(usize::try_from(index).ok()?)
            .filter(|_| x < self.width)
            .copied()
    }

    /// Fills a rectangle, as the guest's `patch` does.
    pub fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, colour: u32) {
        let row_length = self.width.max(1) as usize;
        for (row, line) in self
            .pixels
            .chunks_mut(row_length)
            .zip(0..)
            .map(|(l, r)| (r, l))
        {
            for (column, pixel) in (0..).zip(line.iter_mut()) {
                if (y..y + height).contains(&row) && (x..x + width).contains(&column) {
                    *pixel = colour;
                }
            }
        }
    }

    /// In words, how `self` differs from what was expected; `None` if it does not.
    #[must_use]
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if (self.width, self.height) != (expected.width, expected.height) {
            return Some(format!(
                "{}x{} instead of {}x{}",
                self.width, self.height, expected.width, expected.height
            ));
        }
        let pairs = || self.pixels.iter().zip(&expected.pixels);
        let count = pairs().filter(|(is, should)| is != should).count();
        let (index, (is, should)) = pairs().enumerate().find(|(_, (is, should))| is != should)?;
        let (x, y) = (
            index as u64 % u64::from(self.width),
            index as u64 / u64::from(self.width),
        );
        Some(format!(
            "{count} of {} pixels differ, the first at {x},{y}: {is:06x} instead of {should:06x}",
            self.pixels.len()
        ))
    }

    /// Reads a PNG of 8 bits a channel: RGB as [`save_png`](Self::save_png) and QEMU write it, or RGBA as
    /// browsers do, if it is opaque.
    ///
    /// # Errors
    ///
    /// If it is none, cut short, or transparent somewhere.
    pub fn from_png(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut png = png::Decoder::new(std::io::Cursor::new(bytes)).read_info()?;
        let mut data = vec![0; png.output_buffer_size().context("a picture too large")?];
        let info = png.next_frame(&mut data)?;
        let pixels = match (info.color_type, info.bit_depth) {
            (png::ColorType::Rgb, png::BitDepth::Eight) => {
                let pixels = chunks(&data)
                    .map(|&[red, green, blue]| u32::from_be_bytes([0, red, green, blue]));
                pixels.collect()
            }
            (png::ColorType::Rgba, png::BitDepth::Eight) => {
                let opaque = chunks(&data).all(|&[_, _, _, alpha]| alpha == u8::MAX);
                ensure!(opaque, "the picture is transparent");
                let pixels = chunks(&data)
                    .map(|&[red, green, blue, _]| u32::from_be_bytes([0, red, green, blue]));
                pixels.collect()
            }
            format => bail!("not RGB or RGBA of 8 bits a channel: {format:?}"),
        };
        Ok(Self {
            width: info.width,
            height: info.height,
            pixels,
        })
    }

    /// Saves the picture as PNG.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save_png(&self, path: &Path) -> anyhow::Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let rgb: Vec<u8> = self
            .pixels
            .iter()
            .flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1))
            .collect();
        writer.write_image_data(&rgb)?;
        writer
            .finish()
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The whole chunks of `N` bytes.
fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = &[u8; N]> {
    bytes.chunks_exact(N).filter_map(<[u8]>::first_chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_is_read() {
        let image = Image::from_ppm(b"P6\n2 1\n255\n\x01\x02\x03\x0a\x0b\x0c").expect("ppm");
        assert_eq!(image.pixels, [0x01_02_03, 0x0a_0b_0c]);
        assert_eq!(image.get(1, 0), Some(0x0a_0b_0c));
        assert_eq!(image.get(2, 0), None);
    }

    #[test]
    fn qemu_pads_the_rows() {
        let image = Image::from_ppm(b"P6\n1 2\n255\n\x01\x02\x03\0\x04\x05\x06\0").expect("ppm");
        assert_eq!(image.pixels, [0x01_02_03, 0x04_05_06]);
    }

    #[test]
    fn ppm_cut_short_is_refused() {
        for bytes in [
            &b"P6\n2 1\n255\n\x01\x02\x03"[..],
            b"P6\n2",
            b"P5\n1 1\n255\n\x01",
            b"",
        ] {
            assert!(Image::from_ppm(bytes).is_err());
        }
    }

    #[test]
    fn differences_are_counted_and_located() {
        let card = Image::test_card(40, 30);
        let mut other = card.clone();
        assert_eq!(other.difference(&card), None);
        other.fill(3, 29, 2, 1, 0x12_34_56);
        let difference = other.difference(&card).expect("differs");
        assert!(difference.starts_with("2 of 1200 pixels differ, the first at 3,29: 123456"));
        assert!(
            card.crop(0, 0, 4, 4)
                .difference(&card)
                .expect("differs")
                .contains("4x4")
        );
    }

    #[test]
    fn png_keeps_every_pixel() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let card = Image::test_card(33, 17);
        card.save_png(file.path()).expect("save");
        let reader = std::io::BufReader::new(File::open(file.path()).expect("open"));
        let mut reader = png::Decoder::new(reader).read_info().expect("png");
        let mut rgb = vec![0; reader.output_buffer_size().expect("size")];
        reader.next_frame(&mut rgb).expect("frame");
        let pixels: Vec<u32> = chunks(&rgb)
            .map(|&[r, g, b]| u32::from_be_bytes([0, r, g, b]))
            .collect();
        assert_eq!(pixels, card.pixels);
    }
}
