// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cursor of a scanout.

use crate::gpu::resource::CursorPixels;

/// Where a cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Column of its hot spot.
    pub(crate) x: u32,
    /// Row of its hot spot.
    pub(crate) y: u32,
    /// Whether it can be seen.
    pub(crate) visible: bool,
}

/// What a cursor looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Column of the hot spot in it.
    pub(crate) hot_x: u32,
    /// Row of the hot spot in it.
    pub(crate) hot_y: u32,
    /// 64 by 64 pixels.
    pub(crate) pixels: CursorPixels,
}

/// A cursor as the driver set it last.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) position: Position,
    pub(super) shape: Option<Shape>,
}
