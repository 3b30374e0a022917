// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages between a GPU and a display that is sent pixels (QEMU, docs/interop/vhost-user-gpu.rst): a VMM, or a
//! console. Values only: no I/O, and no message in parts.
//!
//! Numbers are in the host's byte order. The GPU sends requests, the display replies to those that want it, with the
//! same request number and [`REPLY`] set. One request goes the other way: [`RESIZE`](request::RESIZE), an extension of
//! ours for consoles.
//!
//! # What a console is sent
//!
//! After the negotiation (`GET_PROTOCOL_FEATURES`, whose reply it owes, then `SET_PROTOCOL_FEATURES`) it is sent one
//! `SCANOUT` for each of [`MAX_SCANOUTS`] heads, with the size 0 by 0 for those that are off; then the pixels and the
//! cursors of those that are on. Until then it knows nothing of a head. After that a `SCANOUT` says that a head is
//! switched on, off, or has another size; its pixels are undefined until the next `UPDATE`s.

mod header;
mod payload;

pub use header::{Header, REPLY};
pub use payload::{
    CURSOR_PIXELS_LEN, CURSOR_SIZE, CursorPosition, CursorUpdate, Features, PIXEL_LEN, Resize,
    ResizeResult, Scanout, Update,
};

/// Most heads of a GPU.
pub const MAX_SCANOUTS: usize = 16;

/// Request numbers.
pub mod request {
    /// GPU to display, no payload; the reply has the [`Features`](crate::Features) that the display offers.
    pub const GET_PROTOCOL_FEATURES: u32 = 1;
    /// GPU to display: the [`Features`](crate::Features) in use, of those that were offered. No reply.
    pub const SET_PROTOCOL_FEATURES: u32 = 2;
    /// GPU to display: [`CursorPosition`](crate::CursorPosition) of a cursor that is visible. No reply.
    pub const CURSOR_POS: u32 = 4;
    /// GPU to display: [`CursorPosition`](crate::CursorPosition) of a cursor that is hidden. No reply.
    pub const CURSOR_POS_HIDE: u32 = 5;
    /// GPU to display: [`CursorUpdate`](crate::CursorUpdate), then [`CURSOR_PIXELS_LEN`](crate::CURSOR_PIXELS_LEN)
    /// bytes of pixels: blue, green, red, alpha (premultiplied), row by row. Shows the cursor. No reply.
    pub const CURSOR_UPDATE: u32 = 6;
    /// GPU to display: [`Scanout`](crate::Scanout). No reply.
    pub const SCANOUT: u32 = 7;
    /// GPU to display: [`Update`](crate::Update), then its pixels: blue, green, red, unused; row by row without gaps.
    /// No reply.
    pub const UPDATE: u32 = 8;
    /// Display to GPU, only with [`Features::RESIZE`](crate::Features::RESIZE): [`Resize`](crate::Resize). The GPU
    /// replies with a [`ResizeResult`](crate::ResizeResult), in the order of the requests.
    pub const RESIZE: u32 = 0x1000;
}
