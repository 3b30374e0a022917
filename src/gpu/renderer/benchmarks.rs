// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parts of a transfer and a flush that `benches/parts` measures one by one.

use std::hint::black_box;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::row_copy::copy_pixels;
use crate::geometry::Rect;
use crate::gpu::protocol::{Format, MemEntry};
use crate::gpu::region::Region;
use crate::gpu::resource::{Backing, Budget, MAX_PIECE, merge};

/// A row of 1920 pixels.
const ROW: usize = 1920 * 4;
/// The pages of a screen of 1920x1080, which lie apart from each other.
const PAGES: u64 = 2025;
const PAGE: u64 = 4096;

/// A part: its name, and what does one piece of its work.
pub type Part = (&'static str, Box<dyn FnMut()>);

/// All parts.
///
/// # Panics
/// If there is no memory.
#[must_use]
pub fn parts() -> Vec<Part> {
    let screen = Screen::new();
    let [attached, searched, copied, ordered] =
        [screen.clone(), screen.clone(), screen.clone(), screen];
    vec![
        ("region: 16 rectangles added and taken", Box::new(region)),
        ("merge: a row of 1920 pixels, none changed", merge_row(None)),
        (
            "merge: a row of 1920 pixels, the middle one changed",
            merge_row(Some(ROW / 2)),
        ),
        (
            "backing: 2025 pages attached",
            Box::new(move || drop(black_box(attached.attach()))),
        ),
        ("backing: 64 rows of 64 pixels found", searched.search()),
        (
            "rows: 1920 pixels copied and compared",
            copied.copy(Format::B8G8R8X8),
        ),
        (
            "rows: 1920 pixels of another order of bytes",
            ordered.copy(Format::R8G8B8X8),
        ),
    ]
}

/// The guest's memory behind a screen.
#[derive(Clone)]
struct Screen {
    memory: GuestMemoryMmap,
    budget: Budget,
}

#[expect(clippy::expect_used, reason = "it is run by hand")]
impl Screen {
    fn new() -> Self {
        let all = (GuestAddress(0), (2 * PAGES * PAGE) as usize);
        Self {
            memory: GuestMemoryMmap::from_ranges(&[all]).expect("guest memory"),
            budget: Budget::new(1 << 30),
        }
    }

    fn attach(&self) -> Backing {
        let entries = (0..PAGES).map(|n| MemEntry {
            addr: 2 * n * PAGE,
            length: PAGE as u32,
        });
        let mut backing = Backing::new(&self.budget).expect("a budget");
        let added = backing.add(entries, &self.memory);
        added.expect("entries within the memory");
        backing.finish();
        backing
    }

    fn search(self) -> Box<dyn FnMut()> {
        let backing = self.attach();
        Box::new(move || {
            let mut reader = backing.reader(&self.memory);
            for row in 500..564 {
                reader.seek(row * ROW as u64);
                black_box(reader.piece(256).expect("a piece").len());
            }
        })
    }

    fn copy(self, format: Format) -> Box<dyn FnMut()> {
        let backing = self.attach();
        let (mut old, mut block) = (vec![0; ROW], [0; MAX_PIECE]);
        Box::new(move || {
            let mut reader = backing.reader(&self.memory);
            let mut rest = &mut old[..];
            while !rest.is_empty() {
                let copy = copy_pixels(&mut reader, format, rest, &mut block).expect("pixels");
                rest = rest.get_mut(copy.len..).unwrap_or_default();
            }
        })
    }
}

fn region() {
    let mut region = Region::default();
    for n in 0..Region::MAX_RECTS as u32 {
        region.add(Rect::from_edges(n * 100, n * 50, n * 100 + 64, n * 50 + 64));
    }
    let mut taken = Region::default();
    region.take_within(&Rect::from_edges(32, 32, 1952, 1112), &mut taken);
    black_box((region, taken));
}

fn merge_row(changed: Option<usize>) -> Box<dyn FnMut()> {
    let (mut old, mut new) = (vec![0_u8; ROW], vec![0_u8; ROW]);
    Box::new(move || {
        if let Some(byte) = changed.and_then(|at| new.get_mut(at)) {
            *byte = byte.wrapping_add(1);
        }
        black_box(merge(&mut old, black_box(&new)));
    })
}
