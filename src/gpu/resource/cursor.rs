// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pixels of a cursor.

/// Columns and rows of a cursor, in pixels (`VHOST_USER_GPU_CURSOR_UPDATE`).
pub(crate) const CURSOR_SIDE: u32 = 64;
/// Bytes of a cursor's pixels.
pub(crate) const CURSOR_LEN: usize = 64 * 64 * 4;

/// The pixels of a cursor in the display's order (blue, green, red, alpha), row by row.
pub(crate) type CursorPixels = Box<[u8; CURSOR_LEN]>;
