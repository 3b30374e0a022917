//! What a display is to have in the end, for the targets in fuzz/.

use super::super::region::Rect;
use super::super::resource::PIXEL_LEN;
use super::{Scanout, Scanouts};

/// What a display has of a scanout once it was sent everything.
#[derive(Debug)]
pub enum Truth {
    /// Nothing.
    Nothing,
    /// What was there before: nothing of the view was flushed yet.
    Old,
    /// The buffer with this inode.
    Dmabuf(u64),
    /// So many columns and rows, and the pixels; none where they changed since.
    Pixels(u32, u32, Vec<Option<u32>>),
}

impl Scanouts {
    /// What a display that was sent everything has of each scanout.
    pub fn truth(&self) -> Vec<Truth> {
        let truth = |scanout: &Scanout| {
            let Some(view) = &scanout.view else {
                return Truth::Nothing;
            };
            if scanout.fresh {
                return Truth::Old;
            }
            if let Some(dmabuf) = scanout.dmabuf(self.takes) {
                let stat = rustix::fs::fstat(&dmabuf.fd);
                return Truth::Dmabuf(stat.map_or(0, |stat| stat.st_ino));
            }
            let image = view.image.lock();
            let mut pixels = Vec::new();
            for y in 0..view.rect.height {
                let len = view.rect.width as usize * PIXEL_LEN;
                let row = image.bytes(view.rect.x, view.rect.y.saturating_add(y), len);
                let (words, _) = row.as_chunks::<4>();
                pixels.extend((0..).zip(words).map(|(x, word)| {
                    let is_newer = |r: &Rect| {
                        let inside = |at: u32, from: u32, len| at >= from && at - from < len;
                        inside(x, r.x, r.width) && inside(y, r.y, r.height)
                    };
                    let newer = scanout.changed.rects().iter().any(is_newer);
                    (!newer).then_some(u32::from_ne_bytes(*word))
                }));
            }
            Truth::Pixels(view.rect.width, view.rect.height, pixels)
        };
        self.scanouts.iter().map(truth).collect()
    }
}
