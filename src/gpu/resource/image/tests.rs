// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of images.

use super::*;

fn size(width: u32, height: u32) -> Size {
    Size { width, height }
}

#[test]
fn sizes_are_bounded() {
    let budget = Budget::new(1 << 30);
    for (width, height) in [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (1, u32::MAX)] {
        assert!(matches!(
            Image::new(size(width, height), &budget),
            Err(ImageError::Size(..))
        ));
    }
    assert!(matches!(
        Image::new(size(MAX_SIDE, MAX_SIDE), &Budget::new(1 << 20)),
        Err(ImageError::Budget(_))
    ));
    assert_eq!(budget.used(), 0);
}

#[test]
fn merge_row_returns_the_changed_columns() {
    let mut image = Image::new(size(100, 2), &Budget::new(1 << 20)).unwrap();
    let mut row = vec![0_u8; 100 * PIXEL_LEN];
    assert_eq!(image.merge_row(0, 1, &row), None);
    row[40 * PIXEL_LEN + 3] = 1;
    assert_eq!(image.merge_row(0, 1, &row), Some(40..41));
    row[3] = 1;
    row[99 * PIXEL_LEN] = 1;
    assert_eq!(image.merge_row(0, 1, &row), Some(0..100));
    assert_eq!(image.merge_row(0, 1, &row), None);
    assert_eq!(image.bytes(0, 1, row.len()), row);
    assert!(image.bytes(0, 0, row.len()).iter().all(|b| *b == 0));
    assert_eq!(image.merge_row(10, 0, &[9; 8]), Some(10..12));
}

#[test]
fn differences_are_found_at_every_pixel() {
    let old = vec![0_u8; 39 * PIXEL_LEN];
    for a in 0..39 {
        for b in a..39 {
            let mut new = old.clone();
            new[a * PIXEL_LEN] = 1;
            new[b * PIXEL_LEN + 3] = 1;
            let found = difference(&old, &new);
            assert_eq!(found, Some(a * PIXEL_LEN..(b + 1) * PIXEL_LEN));
        }
    }
}

#[test]
fn bytes_beyond_the_image_are_empty() {
    let mut image = Image::new(size(4, 4), &Budget::new(1 << 20)).unwrap();
    assert!(image.bytes(0, 4, 4).is_empty());
    assert!(image.bytes(u32::MAX, u32::MAX, usize::MAX).is_empty());
    assert_eq!(image.merge_row(0, u32::MAX, &[1; 16]), None);
}
