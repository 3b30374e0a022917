//! What a display is told of a screen.

use std::sync::Arc;

use super::super::region::Rect;
use super::super::resource::Dmabuf;
use super::super::resource::SharedImage;
use super::{Position, Shape};

/// What a display is to be sent next.
#[derive(Debug)]
pub enum Update {
    /// The size of a scanout in pixels; 0 by 0 for one that is disabled.
    Scanout {
        /// The scanout.
        id: u32,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// New pixels.
    Pixels {
        /// The scanout.
        id: u32,
        /// Where in the scanout.
        rect: Rect,
        /// Where they are read from.
        image: SharedImage,
        /// Where in the image.
        source: Rect,
    },
    /// The buffer that a scanout shows from now on, or that it shows none any more.
    Dmabuf {
        /// The scanout.
        id: u32,
        /// The buffer; the scanout shows all of it.
        dmabuf: Option<Arc<Dmabuf>>,
        /// Whether the display is told how its pixels lie.
        modifier: bool,
    },
    /// A part of the buffer that a scanout shows is new. The front-end answers this.
    DmabufDamage {
        /// The scanout.
        id: u32,
        /// Where in the scanout.
        rect: Rect,
    },
    /// A new cursor, and where it is.
    Cursor {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
        /// The cursor.
        shape: Shape,
    },
    /// The cursor was moved or hidden.
    CursorPosition {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
    },
}
