// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's screen shows: a small change, a photo, a terminal.

use frontend::gpu::Rect;

/// Bytes of a pixel.
const PIXEL: usize = 4;
/// Size of a terminal's cell in pixels.
const CELL: (usize, usize) = (8, 16);
/// Colors of the terminal.
const PAPER: [u8; 4] = [0x1e, 0x1e, 0x1e, 0];
const INK: [u8; 4] = [0xcc, 0xcc, 0xcc, 0];

/// What changes from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Every pixel of this part, and no other.
    Patch(Rect),
    /// Every pixel: a photo (smooth colors and a little noise) moves.
    Photo,
    /// A terminal full of text scrolls by a line.
    Text,
}

/// The frames of a screen, one after the other: bytes B, G, R and one that is not shown.
pub(super) struct Picture {
    width: usize,
    height: usize,
    change: Change,
    pixels: Vec<u8>,
    round: u32,
    random: Random,
    /// Two frames of the photo, which differ in each pixel.
    photos: [Vec<u8>; 2],
}

impl Picture {
    /// The first frame.
    pub(super) fn new((width, height): (u32, u32), change: Change) -> Self {
        let (width, height) = (width as usize, height as usize);
        let mut random = Random(1);
        let photos = match change {
            Change::Photo => [0, 1].map(|n| photo(width, height, n, &mut random)),
            _ => Default::default(),
        };
        let mut picture = Self {
            width,
            height,
            change,
            pixels: PAPER.repeat(width * height),
            round: 0,
            random,
            photos,
        };
        let lines = if change == Change::Text {
            height / CELL.1
        } else {
            1
        };
        for _ in 0..lines {
            picture.advance();
        }
        picture
    }

    /// The part that changes.
    pub(super) fn changed(&self) -> Rect {
        match self.change {
            Change::Patch(rect) => rect,
            _ => Rect::sized(self.width as u32, self.height as u32),
        }
    }

    /// A pixel that is another one in each frame: where its bytes lie. It is the last one that changes.
    pub(super) fn marker(&self) -> usize {
        let Rect {
            x,
            y,
            width,
            height,
        } = self.changed();
        ((y + height - 1) as usize * self.width + (x + width - 1) as usize) * PIXEL
    }

    /// The next frame.
    pub(super) fn advance(&mut self) {
        self.round = self.round.wrapping_add(1);
        match self.change {
            Change::Patch(rect) => {
                let color = self.round.wrapping_mul(0x0001_0305);
                for y in rect.y..rect.y + rect.height {
                    let at = (y as usize * self.width + rect.x as usize) * PIXEL;
                    let row = &mut self.pixels[at..at + rect.width as usize * PIXEL];
                    for (x, pixel) in (0..).zip(row.chunks_exact_mut(PIXEL)) {
                        pixel.copy_from_slice(&color.wrapping_add(x).to_le_bytes());
                    }
                }
            }
            Change::Photo => {
                let photo = &self.photos[self.round as usize % 2];
                self.pixels.copy_from_slice(photo);
            }
            Change::Text => {
                let line = self.width * CELL.1 * PIXEL;
                self.pixels.copy_within(line.., 0);
                self.write_line();
                // Below the text, as no letter is sure to change.
                let marker = self.marker();
                let color = [self.round as u8, (self.round >> 8) as u8, 0, 0];
                self.pixels[marker..marker + PIXEL].copy_from_slice(&color);
            }
        }
    }

    /// All its bytes.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes of row `y` of `rect`, and where they lie.
    pub(super) fn row(&self, rect: Rect, y: u32) -> (usize, &[u8]) {
        let at = (y as usize * self.width + rect.x as usize) * PIXEL;
        (at, &self.pixels[at..at + rect.width as usize * PIXEL])
    }

    /// A line of words in the last whole row of cells, over what was there.
    fn write_line(&mut self) {
        let columns = self.width / CELL.0;
        let top = (self.height / CELL.1 - 1) * CELL.1;
        let rest = top * self.width * PIXEL;
        for pixel in self.pixels[rest..].chunks_exact_mut(PIXEL) {
            pixel.copy_from_slice(&PAPER);
        }
        // As in a log, most lines are shorter than the terminal.
        let length = columns / 4 + self.random.below(columns / 2);
        let mut word = 0;
        for column in 0..length {
            if word == 0 {
                word = 1 + self.random.below(9);
                continue;
            }
            word -= 1;
            let strokes = 1 + self.random.below(127);
            self.write_letter(column, top, strokes);
        }
    }

    /// A letter made of some of seven strokes, two pixels thick where they are upright.
    fn write_letter(&mut self, column: usize, top: usize, strokes: usize) {
        const STROKES: [(usize, usize, usize, usize); 7] = [
            (1, 3, 6, 1),
            (1, 3, 2, 5),
            (5, 3, 2, 5),
            (1, 7, 6, 1),
            (1, 7, 2, 5),
            (5, 7, 2, 5),
            (1, 12, 6, 1),
        ];
        for (n, &(x, y, width, height)) in STROKES.iter().enumerate() {
            if strokes >> n & 1 == 0 {
                continue;
            }
            for row in top + y..top + y + height {
                let at = (row * self.width + column * CELL.0 + x) * PIXEL;
                for pixel in self.pixels[at..at + width * PIXEL].chunks_exact_mut(PIXEL) {
                    pixel.copy_from_slice(&INK);
                }
            }
        }
    }
}

fn photo(width: usize, height: usize, frame: u8, random: &mut Random) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(width * height * PIXEL);
    let wave = |n: usize, of: usize| {
        let angle = n as f32 / of as f32 * std::f32::consts::TAU;
        (angle.sin() * 100.0 + 110.0) as u8
    };
    for y in 0..height {
        for x in 0..width {
            // Two bits of noise, as a camera has; the top bit of blue tells the frames apart.
            let noise = random.below(4) as u8;
            let blue = wave(x + 2 * y, width) >> 1 | frame << 7;
            let green = wave(x + y / 2 + usize::from(frame) * 9, width / 2);
            let red = wave(y + usize::from(frame) * 9, height);
            pixels.extend([blue, green | noise, red ^ noise, 0]);
        }
    }
    pixels
}

/// Numbers that are the same in each run (Knuth's constants).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// One of 0 to `limit` - 1.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (640, 100);

    fn differences(change: Change) -> usize {
        let mut picture = Picture::new(SIZE, change);
        let before = picture.pixels.clone();
        picture.advance();
        let pairs = before.chunks(PIXEL).zip(picture.pixels.chunks(PIXEL));
        pairs.filter(|(a, b)| a[..3] != b[..3]).count()
    }

    #[test]
    fn photos_change_everywhere() {
        assert_eq!(differences(Change::Photo), 640 * 100);
    }

    #[test]
    fn patches_change_nothing_else() {
        assert_eq!(differences(Change::Patch(Rect::new(5, 6, 64, 32))), 64 * 32);
    }

    #[test]
    fn text_scrolls() {
        let mut picture = Picture::new(SIZE, Change::Text);
        let before = picture.pixels.clone();
        picture.advance();
        let line = 640 * 16 * PIXEL;
        // Six lines of text; four rows of pixels are left over.
        assert_eq!(picture.pixels[..5 * line], before[line..6 * line]);
        assert_ne!(
            picture.pixels[5 * line..6 * line],
            before[5 * line..6 * line]
        );
        let inked = |p: &[u8]| p.chunks(PIXEL).filter(|p| *p == INK).count();
        assert!(inked(&picture.pixels) > 640 * 100 / 20);
    }

    #[test]
    fn markers_differ_from_frame_to_frame() {
        for change in [
            Change::Patch(Rect::new(5, 6, 64, 32)),
            Change::Photo,
            Change::Text,
        ] {
            let mut picture = Picture::new(SIZE, change);
            let marker = picture.marker();
            let before = picture.pixels[marker..marker + 3].to_vec();
            picture.advance();
            assert_ne!(picture.pixels[marker..marker + 3], before, "{change:?}");
        }
    }
}
