// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The picture on a display.

use super::super::Rect;

/// The picture of a scanout, as SCANOUT made it and UPDATE drew it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Rows of `x8r8g8b8` words in the host's byte order, without gaps.
    pub pixels: Vec<u8>,
}

impl Surface {
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            pixels: vec![0; width as usize * height as usize * 4],
        }
    }

    /// Red, green and blue at this place; none outside.
    pub fn rgb(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y as usize * self.width as usize + x as usize) * 4;
        let word = u32::from_ne_bytes([0, 1, 2, 3].map(|i| self.pixels[at + i]));
        Some([(word >> 16) as u8, (word >> 8) as u8, word as u8])
    }

    pub(super) fn contains(&self, rect: Rect) -> bool {
        let within =
            |start: u32, len: u32, all: u32| start.checked_add(len).is_some_and(|end| end <= all);
        within(rect.x, rect.width, self.width) && within(rect.y, rect.height, self.height)
    }
}

/// What the pointer looks like and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The scanout it is on.
    pub scanout: u32,
    /// Position of its hot spot.
    pub position: (u32, u32),
    /// The hot spot within the picture.
    pub hot_spot: (u32, u32),
    /// Whether it is shown.
    pub visible: bool,
    /// 64x64 words `a8r8g8b8`; empty before the first CURSOR_UPDATE.
    pub pixels: Vec<u8>,
}
