// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The test card: a picture that is a pure function of its size.
//!
//! The guest draws it through DRM, the host computes it again and compares.
//! Every region is there to show one kind of damage: the bars swapped colour
//! channels, the gradients a wrong stride or clipped rows, the noise a single
//! lost, doubled or shifted pixel, the frame a picture cut off by one.

/// Colours of the bars, as 0xRRGGBB.
const BARS: [u32; 8] = [
    0xff_ff_ff, 0xff_ff_00, 0x00_ff_ff, 0x00_ff_00, 0xff_00_ff, 0xff_00_00, 0x00_00_ff, 0x00_00_00,
];

/// The colour of the pixel in column `x` and row `y` of a test card of
/// `width` by `height` pixels, as 0x00RRGGBB.
#[must_use]
pub fn pixel(x: u32, y: u32, width: u32, height: u32) -> u32 {
    let (last_x, last_y) = (width.saturating_sub(1), height.saturating_sub(1));
    if x == 0 || y == 0 || x == last_x || y == last_y {
        return if (x ^ y) & 1 == 0 {
            0xff_ff_ff
        } else {
            0xff_00_00
        };
    }
    let scaled = |value: u32, steps: u32, whole: u32| -> u32 {
        let step = u64::from(value) * u64::from(steps) / u64::from(whole.max(1));
        u32::try_from(step).unwrap_or(u32::MAX).min(steps - 1)
    };
    match scaled(y, 6, height) {
        0 | 1 => BARS[scaled(x, 8, width) as usize],
        2 => scaled(x, 256, width) << 16,
        3 => scaled(x, 256, width) << 8 | scaled(y, 256, height),
        4 => scaled(x, 256, width) * 0x01_01_01,
        _ => noise(x, y),
    }
}

/// A whole test card, row by row, as 0x00RRGGBB.
#[must_use]
pub fn draw(width: u32, height: u32) -> Vec<u32> {
    (0..height)
        .flat_map(|y| (0..width).map(move |x| pixel(x, y, width, height)))
        .collect()
}

/// A colour that no neighbour is likely to share.
fn noise(x: u32, y: u32) -> u32 {
    let mut hash = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x2c1b_3c6d);
    hash ^= hash >> 13;
    hash & 0xff_ff_ff
}

/// FNV-1a over the colour channels of `pixels`; their unused top byte does not count.
pub fn checksum(pixels: impl IntoIterator<Item = u32>) -> u64 {
    pixels
        .into_iter()
        .flat_map(|pixel| pixel.to_le_bytes().into_iter().take(3))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_has_every_pixel_and_a_frame() {
        let card = draw(64, 48);
        assert_eq!(card.len(), 64 * 48);
        assert!(
            card[..64]
                .iter()
                .all(|&pixel| pixel == 0xff_ff_ff || pixel == 0xff_00_00)
        );
        assert!(card.iter().all(|pixel| pixel >> 24 == 0));
    }

    #[test]
    fn shift_by_one_pixel_changes_nearly_every_noise_pixel() {
        let (width, height) = (640, 480);
        let row = 470;
        let same = (1..width - 2)
            .filter(|&x| pixel(x, row, width, height) == pixel(x + 1, row, width, height))
            .count();
        assert!(same < 5, "{same} neighbours are equal");
    }

    #[test]
    fn tiny_cards_are_drawn_too() {
        assert_eq!(draw(1, 1), [0xff_ff_ff]);
        assert!(draw(0, 5).is_empty());
    }

    #[test]
    fn checksum_ignores_the_unused_byte_and_sees_the_order() {
        assert_eq!(checksum([0xff00_0001]), checksum([1]));
        assert_ne!(checksum([1, 2]), checksum([2, 1]));
    }
}
