// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory in pages that lie anywhere.

use frontend::Memory;
use frontend::gpu::Rect;

/// Size of a guest's page in bytes.
pub(crate) const PAGE: u64 = 4096;

/// Pixels in pages that lie anywhere, as a guest's do after a while.
pub(crate) struct Scattered {
    memory: Memory,
    /// In the order of the pixels.
    pages: Vec<u64>,
    row: Vec<u8>,
}

impl Scattered {
    /// `len` bytes of `memory`.
    ///
    /// # Errors
    /// If it has not as many.
    pub(crate) fn new(memory: &Memory, len: u64) -> anyhow::Result<Self> {
        let base = memory.alloc(len.next_multiple_of(PAGE), PAGE)?;
        let mut pages: Vec<u64> = (0..len.div_ceil(PAGE)).map(|n| base + n * PAGE).collect();
        // Fisher and Yates, with a generator that is the same in each run (Knuth's constants).
        let mut state: u64 = 1;
        for i in (1..pages.len()).rev() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            pages.swap(i, (state >> 33) as usize % (i + 1));
        }
        Ok(Self {
            memory: memory.clone(),
            pages,
            row: Vec::new(),
        })
    }

    /// The pages in the order of the pixels, as a backing has them.
    pub(crate) fn entries(&self) -> Vec<(u64, u32)> {
        self.pages.iter().map(|page| (*page, PAGE as u32)).collect()
    }

    /// The address of page `index`.
    pub(crate) fn page(&self, index: usize) -> u64 {
        self.pages[index]
    }

    /// Changes every pixel of `rect` of a screen that is `width` pixels wide.
    ///
    /// # Errors
    /// As [`Memory::write`].
    pub(crate) fn draw(&mut self, width: u32, rect: Rect, round: u32) -> anyhow::Result<()> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        let color = round.wrapping_mul(0x0001_0305);
        row.extend((0..rect.width).flat_map(|x| color.wrapping_add(x).to_le_bytes()));
        let stride = u64::from(width) * 4;
        for y in rect.y..rect.y + rect.height {
            self.write(u64::from(y) * stride + u64::from(rect.x) * 4, &row)?;
        }
        self.row = row;
        Ok(())
    }

    /// Writes `bytes` at `at` of the whole.
    ///
    /// # Errors
    /// As [`Memory::write`].
    pub(crate) fn write(&self, mut at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = at % PAGE;
            let (now, later) = rest.split_at(rest.len().min((PAGE - within) as usize));
            self.memory
                .write(self.pages[(at / PAGE) as usize] + within, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_is_scattered_and_whole() {
        let memory = Memory::with_size(1 << 20).unwrap();
        let mut screen = Scattered::new(&memory, 64 * 64 * 4).unwrap();
        assert!(!screen.pages.is_sorted());
        screen.draw(64, Rect::new(8, 60, 8, 4), 1).unwrap();
        let mut page = [0; PAGE as usize];
        memory.read(screen.page(3), &mut page).unwrap();
        let drawn = page.chunks(4).enumerate().filter(|(_, p)| **p != [0; 4]);
        let places: Vec<_> = drawn.map(|(n, _)| (n % 64, 48 + n / 64)).collect();
        assert_eq!(places.len(), 8 * 4);
        assert!(
            places
                .iter()
                .all(|(x, y)| (8..16).contains(x) && (60..64).contains(y))
        );
    }

    #[test]
    fn what_crosses_pages_is_split() {
        let memory = Memory::with_size(1 << 20).unwrap();
        let screen = Scattered::new(&memory, 4 * PAGE).unwrap();
        screen.write(PAGE - 2, &[1, 2, 3, 4]).unwrap();
        let mut bytes = [0; 2];
        memory.read(screen.page(0) + PAGE - 2, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2]);
        memory.read(screen.page(1), &mut bytes).unwrap();
        assert_eq!(bytes, [3, 4]);
    }
}
