// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An animation: pictures that are a pure function of their size and number.
//!
//! The guest draws them as fast as it can, the host computes the last one again and compares. Rows are copied from one
//! strip of noise, each frame from other places, so that a lost, doubled or shifted row is seen and drawing takes
//! little more than writing the pixels.

/// Pixels in the strip from which rows begin.
const BEGINNINGS: u64 = 4096;
/// Largest width of a picture.
const MAX_WIDTH: u32 = 4096;

/// The strip of noise.
#[derive(Debug)]
pub struct Animation {
    /// B, G, R and an unused byte for each pixel.
    strip: Vec<u8>,
}

impl Default for Animation {
    fn default() -> Self {
        let mut state = 0x2545_f491_u32;
        let pixels = (0..BEGINNINGS + u64::from(MAX_WIDTH)).flat_map(|_| {
            // xorshift32
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state & 0xff_ff_ff).to_le_bytes()
        });
        Self {
            strip: pixels.collect(),
        }
    }
}

impl Animation {
    /// Of so many frames the first covers the whole picture; the others cover a part of it.
    pub const WHOLE: u64 = 4;

    /// What a frame changes of a picture of `width` by `height` pixels: x, y, width and height.
    #[must_use]
    pub fn area(frame: u64, width: u32, height: u32) -> [u32; 4] {
        if frame % Self::WHOLE == 0 {
            return [0, 0, width, height];
        }
        // Any place, and at least one pixel.
        let part = |whole: u32, seed: u64| {
            let whole = u64::from(whole.max(1));
            let from = frame.wrapping_mul(seed) % whole;
            let len = frame.wrapping_mul(seed ^ 0x155) % (whole - from) + 1;
            (
                u32::try_from(from).unwrap_or(0),
                u32::try_from(len).unwrap_or(1),
            )
        };
        let ((x, width), (y, height)) = (part(width, 0x9e37), part(height, 0x85eb));
        [x, y, width, height]
    }

    /// The pixels of row `y` of a frame from the left edge of its area, `width` (at most 4096) of them.
    #[must_use]
    pub fn row(&self, frame: u64, y: u32, width: u32) -> &[u8] {
        let from = u64::from(y)
            .wrapping_mul(61)
            .wrapping_add(frame.wrapping_mul(197))
            % BEGINNINGS;
        let from = usize::try_from(from * 4).unwrap_or(0);
        let len = width.min(MAX_WIDTH) as usize * 4;
        self.strip.get(from..from + len).unwrap_or_default()
    }

    /// The whole picture after a frame, row by row, as 0x00RRGGBB.
    #[must_use]
    pub fn picture(&self, frame: u64, width: u32, height: u32) -> Vec<u32> {
        let mut pixels = vec![0; width as usize * height as usize];
        for frame in frame - frame % Self::WHOLE..=frame {
            let [x, y, w, h] = Self::area(frame, width, height);
            let rows = pixels.chunks_exact_mut(width.max(1) as usize);
            for (row, y) in rows.zip(0..).skip(y as usize).take(h as usize) {
                let drawn = self.row(frame, y, w).chunks_exact(4);
                let drawn = drawn.filter_map(<[u8]>::first_chunk);
                for (pixel, drawn) in row.iter_mut().skip(x as usize).zip(drawn) {
                    *pixel = u32::from_le_bytes(*drawn);
                }
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_lie_in_the_picture_and_frames_differ() {
        let animation = Animation::default();
        for (width, height) in [(1920, 1080), (1, 1), (3, 700)] {
            for frame in 0..500 {
                let [x, y, w, h] = Animation::area(frame, width, height);
                assert!(w > 0 && h > 0, "{frame}");
                assert!(x + w <= width && y + h <= height, "{frame}");
                assert_eq!(animation.row(frame, y, w).len(), w as usize * 4);
            }
        }
        let pictures = [7, 8, 9].map(|frame| animation.picture(frame, 64, 48));
        assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
    }
}
