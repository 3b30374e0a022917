// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a display is to be sent next.

use std::sync::Arc;

use super::cursor::{Position, Shape};
use crate::geometry::{Rect, Size};
use crate::gpu::resource::{Dmabuf, PixelSource};

/// What a display is to be sent next.
#[derive(Debug)]
pub(crate) enum Update {
    /// The size of a scanout in pixels; 0 by 0 for one that is disabled.
    Scanout {
        /// The scanout.
        id: u32,
        /// Its size.
        size: Size,
    },
    /// Pixels that changed.
    Pixels {
        /// The scanout.
        id: u32,
        /// Where in the scanout.
        rect: Rect,
        /// What they are read from.
        pixels: PixelSource,
        /// Where in that.
        source_rect: Rect,
    },
    /// A scanout shows a dmabuf from now on, or none any more.
    Dmabuf {
        /// The scanout.
        id: u32,
        /// The dmabuf; the scanout shows all of it.
        dmabuf: Option<Arc<Dmabuf>>,
        /// Whether the display is told its modifier.
        modifier: bool,
    },
    /// A part of a scanout's dmabuf changed. The front-end answers this.
    DmabufDamage {
        /// The scanout.
        id: u32,
        /// Where in the scanout.
        rect: Rect,
    },
    /// A cursor's new shape, and where it is.
    Cursor {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
        /// Its shape.
        shape: Shape,
    },
    /// A cursor was moved or hidden.
    CursorPosition {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
    },
}
