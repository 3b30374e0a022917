// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages to a viewer that come between updates.

use std::collections::VecDeque;

use rfb::{Fence, PixelFormat};

/// Most fences of the viewer that wait for their answer; until then nothing more is read of it.
const MAX_FENCES: usize = 16;

/// Messages that wait for the end of an update under way.
#[derive(Default)]
pub(super) struct ControlMessages {
    fences: VecDeque<Fence>,
    /// A fence whose answer comes together with the effect of the next message.
    before_next: Option<Fence>,
    end_of_continuous_updates: bool,
    /// The colours of the viewer's colour map.
    colour_map: bool,
}

impl ControlMessages {
    /// Whether to read no more messages until some are sent.
    pub(super) fn are_full(&self) -> bool {
        self.fences.len() >= MAX_FENCES
    }

    /// Has the viewer's fence answered.
    pub(super) fn answer(&mut self, fence: Fence) {
        if fence.flags & Fence::SYNC_NEXT != 0 {
            self.before_next = Some(fence.answer());
        } else {
            self.fences.push_back(fence.answer());
        }
    }

    /// The answer that waits for the next message to take effect; then it is to be given to [`Self::release`].
    pub(super) fn take_held(&mut self) -> Option<Fence> {
        self.before_next.take()
    }

    /// Says that the message after a fence took effect.
    pub(super) fn release(&mut self, held: Option<Fence>) {
        self.fences.extend(held);
    }

    /// Has the viewer told that continuous updates are known, or off.
    pub(super) fn end_continuous_updates(&mut self) {
        self.end_of_continuous_updates = true;
    }

    /// Has the viewer sent its colour map, if the format uses one.
    pub(super) fn set_format(&mut self, format: PixelFormat) {
        self.colour_map = format.is_colour_map();
    }

    /// Sends a fence that asks the viewer for an answer.
    pub(super) fn request(&mut self, fence: Option<Fence>) {
        self.fences.extend(fence);
    }

    /// Writes all that wait.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        for fence in self.fences.drain(..) {
            fence.write(out);
        }
        if std::mem::take(&mut self.colour_map) {
            rfb::server_message::write_colour_map(out);
        }
        if std::mem::take(&mut self.end_of_continuous_updates) {
            rfb::server_message::write_end_of_continuous_updates(out);
        }
    }

    /// Whether none wait.
    pub(super) fn is_empty(&self) -> bool {
        self.fences.is_empty() && !self.colour_map && !self.end_of_continuous_updates
    }
}
