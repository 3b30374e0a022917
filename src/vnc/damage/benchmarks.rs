// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `benches/parts` measures of the damage by itself.

use std::hint::black_box;

use super::{DamageMap, Merging};
use crate::geometry::{Rect, Size};

/// A part: its name, and what does one piece of its work.
pub type Part = (&'static str, Box<dyn FnMut()>);

/// All parts.
#[must_use]
pub fn parts() -> Vec<Part> {
    vec![
        (
            "damage: rectangles of text, fine",
            rects_of_text(Merging::FINE),
        ),
        (
            "damage: rectangles of text, coarse",
            rects_of_text(Merging::COARSE),
        ),
    ]
}

/// Words of 67 lines, as a terminal of 1920x1080 scrolls them.
fn rects_of_text(merging: Merging) -> Box<dyn FnMut()> {
    let size = Size::new(1920, 1080);
    let mut text = DamageMap::new(size);
    for line in 0..67 {
        // Words of two to eight letters of 8 pixels, and spaces between them.
        let lengths = (0..32).map(|word| 2 + (word * 5 + line * 3) % 7);
        let mut x = 0;
        for letters in lengths {
            text.add(&Rect::from_edges(
                x,
                line * 16 + 3,
                x + letters * 8,
                line * 16 + 14,
            ));
            x += (letters + 1) * 8;
        }
    }
    Box::new(move || {
        let mut damage = DamageMap::new(size);
        damage.add_all(&text);
        black_box(damage.take_rects(&size.into(), merging));
    })
}
