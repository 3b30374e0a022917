// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A picture with a text, for a head without pixels of the guest.

use font8x8::{BASIC_FONTS, UnicodeFonts as _};

use crate::geometry::{Rect, Size};

use super::framebuffer::{Framebuffer, PIXEL_LEN};

/// Width and height of a character of the font, in pixels.
const GLYPH: u32 = 8;
/// Light grey: blue, green, red.
const TEXT_COLOUR: [u8; PIXEL_LEN] = [0xc0, 0xc0, 0xc0, 0];
/// Least size of such a picture: the texts fit.
const LEAST: Size = Size::new(480, 200);

/// A black picture of about `size` with `lines` in its middle.
pub(super) fn picture(size: Size, lines: &[&str]) -> Framebuffer {
    let size = Size::new(size.width.max(LEAST.width), size.height.max(LEAST.height));
    let mut picture = Framebuffer::new(size);
    let longest = lines.iter().map(|line| line.chars().count()).max();
    let longest = longest.unwrap_or(0).max(1) as u32;
    // Legible on a large screen too.
    let scale = (size.width / (longest * GLYPH * 2)).clamp(1, 4);
    let line_height = GLYPH * scale * 2;
    let text_height = line_height * lines.len() as u32;
    let mut y = size.height.saturating_sub(text_height) / 2;
    for line in lines {
        let width = line.chars().count() as u32 * GLYPH * scale;
        let mut x = size.width.saturating_sub(width) / 2;
        for character in line.chars() {
            draw(&mut picture, character, x, y, scale);
            x = x.saturating_add(GLYPH * scale);
        }
        y = y.saturating_add(line_height);
    }
    picture
}

/// Draws a character as far as it lies within the picture.
fn draw(picture: &mut Framebuffer, character: char, x: u32, y: u32, scale: u32) {
    // A name of a VM may hold any character.
    let glyph = BASIC_FONTS.get(character).or_else(|| BASIC_FONTS.get('?'));
    for (row, bits) in (0..).zip(glyph.unwrap_or_default()) {
        for column in (0..GLYPH).filter(|column| bits >> column & 1 != 0) {
            let dot = Rect {
                x: x.saturating_add(column * scale),
                y: y.saturating_add(row * scale),
                width: scale,
                height: scale,
            };
            for row in picture.rows_mut(dot, 0) {
                for pixel in row.chunks_exact_mut(PIXEL_LEN) {
                    pixel.copy_from_slice(&TEXT_COLOUR);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pixels of the text there are, and the rectangle around them.
    fn drawn(picture: &Framebuffer) -> (usize, Rect) {
        let mut count = 0;
        let mut around = Rect::default();
        for (y, row) in (0..).zip(picture.bytes().chunks_exact(picture.stride())) {
            for (x, pixel) in (0..).zip(row.chunks_exact(PIXEL_LEN)) {
                if pixel != [0; PIXEL_LEN] {
                    assert_eq!(pixel, TEXT_COLOUR);
                    count += 1;
                    around = around.around(&Rect::from_edges(x, y, x + 1, y + 1));
                }
            }
        }
        (count, around)
    }

    #[test]
    fn text_stands_in_the_middle() {
        let picture = picture(Size::new(1280, 800), &["The VM \"vm1\"", "is off"]);
        assert_eq!(picture.size(), Size::new(1280, 800));
        let (count, around) = drawn(&picture);
        assert!(count > 1000, "{count}");
        let (left, right) = (around.x, 1280 - around.right());
        assert!(left.abs_diff(right) < 64, "{around:?}");
        let (above, below) = (around.y, 800 - around.bottom());
        assert!(above.abs_diff(below) < 64, "{around:?}");
    }

    #[test]
    fn long_text_and_small_picture_are_drawn_as_far_as_they_fit() {
        let long = "x".repeat(1000);
        let picture = picture(Size::new(1, 1), &[&long, "µ\u{1f600}\0"]);
        assert_eq!(picture.size(), LEAST);
        assert!(drawn(&picture).0 > 100);
    }
}
