// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one display was told of a scanout.

use super::device_scanout::DeviceScanout;
use super::source::{DmabufSupport, ScanoutSource};
use super::update::Update;
use crate::geometry::{Rect, Size};
use crate::gpu::kept_state::SentScanout;
use crate::gpu::region::Region;

/// What a display was told last of a scanout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastSent {
    /// That it is disabled; the VMM's display starts so.
    #[default]
    Disabled,
    /// Nothing: a console does not know whether it is disabled.
    Nothing,
    /// Its size; pixels come with updates.
    Pixels(Size),
    /// A dmabuf.
    Dmabuf,
}

/// What of a scanout a display was told, and what it is still to be sent. Rectangles are in the
/// scanout's coordinates.
#[derive(Debug, Default)]
pub(super) struct DisplayScanout {
    last_sent: LastSent,
    /// Flushed, and ready to be sent.
    damage_to_send: Region,
    /// Whether the display has the dmabuf of the current source.
    dmabuf_sent: bool,
    /// Damage of a dmabuf that was flushed and for which no fence is awaited yet.
    dmabuf_flushed: Option<Rect>,
    /// Damage of a dmabuf that is sent once the awaited fence is retired.
    dmabuf_awaited: Option<Rect>,
    /// Whether the image is to be read back before it is sent in place of a dmabuf.
    needs_readback: bool,
}

impl DisplayScanout {
    /// The scanout has another source, or none.
    pub(super) fn source_changed(&mut self) {
        *self = Self {
            last_sent: self.last_sent,
            ..Self::default()
        };
    }

    /// Starts over with a display that knows nothing, and which is told of disabled scanouts too if it `is_console`.
    pub(super) fn restart(&mut self, is_console: bool) {
        self.last_sent = if is_console {
            LastSent::Nothing
        } else {
            LastSent::Disabled
        };
        self.dmabuf_sent = false;
        // An image that is still to be read back has a dmabuf, which is passed again.
        self.needs_readback = false;
    }

    /// Goes on with a display that a predecessor told `sent`.
    pub(super) fn resume(&mut self, sent: SentScanout) {
        *self = Self {
            last_sent: match sent {
                SentScanout::Disabled => LastSent::Disabled,
                SentScanout::Pixels(size) => LastSent::Pixels(size),
            },
            ..Self::default()
        };
    }

    /// What the display was told, for a successor. It is passed no dmabufs.
    pub(super) fn sent(&self) -> SentScanout {
        match self.last_sent {
            LastSent::Pixels(size) => SentScanout::Pixels(size),
            LastSent::Disabled | LastSent::Nothing | LastSent::Dmabuf => SentScanout::Disabled,
        }
    }

    /// Changes from pixels to the dmabuf of `source`, or back.
    pub(super) fn switch_mode(
        &mut self,
        source: &ScanoutSource,
        by_dmabuf: bool,
        was_flushed: bool,
    ) {
        *self = Self {
            last_sent: self.last_sent,
            dmabuf_flushed: (by_dmabuf && was_flushed).then(|| source.everything()),
            needs_readback: !by_dmabuf && was_flushed,
            ..Self::default()
        };
    }

    /// Queues all of `source` as it is now.
    pub(super) fn send_everything(&mut self, source: &ScanoutSource) {
        self.damage_to_send.clear();
        self.damage_to_send.add(source.everything());
    }

    /// Where flushed damage of pixels goes.
    pub(super) fn damage_to_send(&mut self) -> &mut Region {
        &mut self.damage_to_send
    }

    /// Queues the part of `damage` within `part`, to be sent as pixels.
    pub(super) fn add_damage(&mut self, damage: &Region, part: &Rect) {
        for rect in damage.rects() {
            if let Some(common) = rect.intersection(part) {
                self.damage_to_send.add(common);
            }
        }
    }

    /// `rect` of a dmabuf was flushed.
    pub(super) fn flush_dmabuf(&mut self, rect: Rect) {
        self.dmabuf_flushed = Some(around(self.dmabuf_flushed, rect));
    }

    /// Whether damage of a dmabuf was flushed for which no fence is awaited.
    pub(super) fn wants_fence(&self) -> bool {
        self.dmabuf_flushed.is_some()
    }

    /// What was flushed of a dmabuf is sent after the next [`DisplayScanout::drawing_done`].
    pub(super) fn await_drawing(&mut self) {
        if let Some(rect) = self.dmabuf_flushed.take() {
            self.dmabuf_awaited = Some(around(self.dmabuf_awaited, rect));
        }
    }

    /// The fence that was awaited is retired.
    pub(super) fn drawing_done(&mut self) {
        if let Some(rect) = self.dmabuf_awaited.take() {
            self.damage_to_send.add(rect);
        }
    }

    /// Whether the image is to be read back before anything of it is sent.
    pub(super) fn set_needs_readback(&mut self, needs_readback: bool) {
        self.needs_readback = needs_readback;
    }

    /// Whether the image is to be read back.
    pub(super) fn needs_readback(&self) -> bool {
        self.needs_readback
    }

    /// The image was read back, or cannot be.
    pub(super) fn readback_done(&mut self) {
        self.needs_readback = false;
    }

    /// The next update of `scanout`, whose number is `id`; nothing of a dmabuf while the display
    /// `awaits_dmabuf_ack`.
    pub(super) fn next_update(
        &mut self,
        id: u32,
        scanout: &DeviceScanout,
        support: DmabufSupport,
        awaits_dmabuf_ack: bool,
    ) -> Option<Update> {
        let source = scanout.source();
        if let Some(dmabuf) = source.and_then(|source| source.dmabuf_for(support)) {
            // The display keeps what it has until the dmabuf is drawn.
            if awaits_dmabuf_ack || self.damage_to_send.is_empty() {
                return None;
            }
            if !self.dmabuf_sent {
                self.dmabuf_sent = true;
                self.last_sent = LastSent::Dmabuf;
                return Some(Update::Dmabuf {
                    id,
                    modifier: support == DmabufSupport::Modifiers && !dmabuf.has_no_modifier(),
                    dmabuf: Some(dmabuf.clone()),
                });
            }
            let rect = self.damage_to_send.bounds();
            self.damage_to_send.clear();
            return Some(Update::DmabufDamage { id, rect });
        }
        if self.last_sent == LastSent::Dmabuf {
            self.last_sent = LastSent::Disabled;
            return Some(Update::Dmabuf {
                id,
                dmabuf: None,
                modifier: false,
            });
        }
        let size = scanout.size();
        let wanted = match source {
            Some(_) => LastSent::Pixels(size),
            None => LastSent::Disabled,
        };
        if self.last_sent != wanted {
            self.last_sent = wanted;
            return Some(Update::Scanout { id, size });
        }
        if self.needs_readback {
            return None;
        }
        let source = source?;
        let rect = self.damage_to_send.pop()?;
        Some(Update::Pixels {
            id,
            rect,
            pixels: source.pixels.clone(),
            source_rect: rect.absolute_in(&source.rect),
        })
    }
}

fn around(old: Option<Rect>, rect: Rect) -> Rect {
    old.map_or(rect, |old| old.around(&rect))
}
