// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Scanouts and cursors as records, for a successor of this process.

use std::cell::Cell;

use super::cursor::{Cursor, Position, Shape};
use super::device_scanout::DeviceScanout;
use super::display_id::DisplayId;
use super::display_state::DisplayState;
use super::kept_picture::KeptPicture;
use super::source::ScanoutSource;
use crate::geometry::Rect;
use crate::gpu::kept_state::{
    CursorPositionRecord, CursorShapeRecord, DisplayRecord, KeptState, KeptStateError, RecordError,
    ScanoutRecord,
};
use crate::gpu::protocol::MAX_SCANOUTS;
use crate::gpu::renderer::Renderer;
use crate::gpu::resource::{PixelSource, ResourceError};

/// Where scanouts and cursors are kept, if they are.
#[derive(Debug, Default)]
pub(super) struct ScanoutRecords {
    kept: KeptState,
    /// The cursors' pictures, by the number of their scanout.
    pictures: [KeptPicture; MAX_SCANOUTS],
    /// What is recorded of the VMM's display, which seldom changes.
    display: Cell<Option<DisplayRecord>>,
}

impl ScanoutRecords {
    pub(super) fn new(kept: KeptState) -> Self {
        Self {
            kept,
            pictures: Default::default(),
            display: Cell::new(None),
        }
    }

    /// Keeps the scanout `index` as it is now.
    pub(super) fn put_scanout(&self, index: usize, scanout: &DeviceScanout) {
        let id = index as u32;
        match scanout.source() {
            Some(source) => {
                let record = ScanoutRecord {
                    resource: source.resource,
                    rect: source.rect,
                    framebuffer: match &source.pixels {
                        PixelSource::Image(_) => None,
                        PixelSource::Blob(framebuffer) => Some(framebuffer.layout()),
                    },
                    is_flushed: !scanout.next_flush_is_full(),
                };
                self.kept.put(id, &record);
            }
            None => self.kept.remove::<ScanoutRecord>(id),
        }
    }

    /// Keeps where the cursor `id` is.
    pub(super) fn put_position(&self, id: u32, position: Position) {
        let Position { x, y, visible } = position;
        self.kept.put(id, &CursorPositionRecord { x, y, visible });
    }

    /// Keeps the shape of the cursor `id`.
    pub(super) fn put_shape(&mut self, id: u32, shape: &Shape) {
        let picture = index(id).ok().and_then(|id| self.pictures.get_mut(id));
        let (Some(picture), Some(arena)) = (picture, self.kept.arena()) else {
            return;
        };
        match picture.write(arena, &shape.pixels) {
            Some(offset) => {
                let record = CursorShapeRecord {
                    hot_x: shape.hot_x,
                    hot_y: shape.hot_y,
                    offset,
                };
                self.kept.put(id, &record);
            }
            // A successor has no cursor there until the guest gives it a shape again.
            None => self.kept.remove::<CursorShapeRecord>(id),
        }
    }

    /// Keeps what the VMM's display was told. Those of consoles connect again, and know nothing.
    pub(super) fn put_display(&self, display: &DisplayState) {
        if self.kept.is_kept() && display.id() == DisplayId::VMM {
            let record = display.record();
            if self.display.replace(Some(record)) != Some(record) {
                self.kept.put(0, &record);
            }
        }
    }

    /// A display is gone.
    pub(super) fn remove_display(&self, id: DisplayId) {
        if id == DisplayId::VMM {
            self.display.set(None);
            self.kept.remove::<DisplayRecord>(0);
        }
    }

    /// What a predecessor told the VMM's display.
    pub(super) fn display(&self) -> Result<DisplayRecord, KeptStateError> {
        Ok(self.kept.get(0)?.unwrap_or_default())
    }

    /// All scanouts are disabled, and the cursors gone.
    pub(super) fn clear(&mut self) {
        self.pictures = Default::default();
        self.kept.clear::<ScanoutRecord>();
        self.kept.clear::<CursorPositionRecord>();
        self.kept.clear::<CursorShapeRecord>();
    }

    /// The scanouts that a predecessor left: their numbers, what they show, and whether that was flushed.
    pub(super) fn scanouts(
        &self,
        renderer: &mut dyn Renderer,
    ) -> Result<Vec<(usize, ScanoutSource, bool)>, KeptStateError> {
        let left = self.kept.all::<ScanoutRecord>()?.into_iter();
        let left = left.map(|(id, record)| {
            let ScanoutRecord {
                resource,
                rect,
                framebuffer,
                is_flushed,
            } = record;
            let refused = |source: Box<dyn std::error::Error + Send + Sync>| {
                let name = "scanout";
                let id = id.into();
                KeptStateError::Refused { name, id, source }
            };
            let index = index(id).map_err(|e| refused(e.into()))?;
            if rect.is_empty() {
                return Err(refused(RecordError::Field("rectangle").into()));
            }
            let pixels = match framebuffer {
                None => image(renderer, resource, rect),
                Some(layout) => renderer
                    .framebuffer(resource, layout, &rect)
                    .map(PixelSource::Blob),
            };
            let source = ScanoutSource {
                resource,
                pixels: pixels.map_err(|e| refused(e.into()))?,
                rect,
                dmabuf: None,
            };
            Ok((index, source, is_flushed))
        });
        left.collect()
    }

    /// The cursors that a predecessor left, by the number of their scanout. To be asked before anything else takes a place in
    /// the arena.
    pub(super) fn cursors(&mut self) -> Result<Vec<(usize, Cursor)>, KeptStateError> {
        let refused = |id: u32, source| KeptStateError::Record {
            name: "cursor",
            id: id.into(),
            source,
        };
        let left = self.kept.all::<CursorPositionRecord>()?.into_iter();
        let left = left.map(|(id, CursorPositionRecord { x, y, visible })| {
            let index = index(id).map_err(|e| refused(id, e))?;
            let shape = self.kept.get::<CursorShapeRecord>(id)?;
            let shape = shape.map(|record| {
                let arena = self.kept.arena();
                let picture = arena.and_then(|arena| KeptPicture::adopt(arena, record.offset));
                let (picture, pixels) =
                    picture.ok_or_else(|| refused(id, RecordError::Field("offset")))?;
                if let Some(place) = self.pictures.get_mut(index) {
                    *place = picture;
                }
                Ok(Shape {
                    hot_x: record.hot_x,
                    hot_y: record.hot_y,
                    pixels,
                })
            });
            let cursor = Cursor {
                position: Position { x, y, visible },
                shape: shape.transpose()?,
            };
            Ok((index, cursor))
        });
        left.collect()
    }
}

/// The image of a resource, which `rect` is a part of.
fn image(
    renderer: &mut dyn Renderer,
    resource: u32,
    rect: Rect,
) -> Result<PixelSource, ResourceError> {
    renderer.check_within(resource, rect)?;
    renderer.image_or_create(resource).map(PixelSource::Image)
}

fn index(id: u32) -> Result<usize, RecordError> {
    let index = usize::try_from(id).ok();
    index
        .filter(|index| *index < MAX_SCANOUTS)
        .ok_or(RecordError::Id)
}
