// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A display that shows what it is sent, as the VMM's does.

use crate::geometry::Size;
use crate::gpu::protocol::MAX_SCANOUTS;
use crate::gpu::resource::PIXEL_LEN;
use crate::gpu::scanout::{DisplayId, Position, Scanouts, Update};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelScanout {
    pub(super) size: Size,
    pub(super) pixels: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelCursor {
    pub(super) position: Position,
    pub(super) hot: (u32, u32),
    pub(super) pixels: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelDisplay {
    pub(super) scanouts: [ModelScanout; MAX_SCANOUTS],
    pub(super) cursors: [ModelCursor; MAX_SCANOUTS],
    /// How many updates there were.
    pub(super) updates: usize,
}

impl ModelDisplay {
    /// Takes at most `most` updates; returns whether there are no more.
    pub(super) fn take_updates(&mut self, scanouts: &mut Scanouts, most: usize) -> bool {
        let mut pending = scanouts.pending_updates(DisplayId::VMM).expect("connected");
        for _ in 0..most {
            match pending.take_next(false) {
                Some(update) => self.take(&update),
                None => return true,
            }
        }
        false
    }

    fn take(&mut self, update: &Update) {
        self.updates += 1;
        match update {
            Update::Scanout { id, size } => {
                self.scanouts[*id as usize] = ModelScanout {
                    size: *size,
                    pixels: vec![0; size.area() as usize],
                };
            }
            Update::Pixels {
                id,
                rect,
                pixels,
                source_rect,
            } => {
                let pixels = pixels.read(source_rect);
                let row_len = rect.width as usize * PIXEL_LEN;
                let scanout = &mut self.scanouts[*id as usize];
                for (row, bytes) in (0..rect.height).zip(pixels.chunks_exact(row_len)) {
                    let words = bytes
                        .chunks_exact(PIXEL_LEN)
                        .filter_map(<[u8]>::first_chunk);
                    let at = (rect.y + row) * scanout.size.width + rect.x;
                    let to = &mut scanout.pixels[at as usize..][..rect.width as usize];
                    for (to, word) in to.iter_mut().zip(words) {
                        *to = u32::from_ne_bytes(*word);
                    }
                }
            }
            Update::Cursor {
                id,
                position,
                shape,
            } => {
                self.cursors[*id as usize] = ModelCursor {
                    position: Position {
                        visible: true,
                        ..*position
                    },
                    hot: (shape.hot_x, shape.hot_y),
                    pixels: shape.pixels.to_vec(),
                };
            }
            Update::CursorPosition { id, position } => {
                self.cursors[*id as usize].position = *position;
            }
            Update::Dmabuf { .. } | Update::DmabufDamage { .. } => panic!("there are no dmabufs"),
        }
    }
}
