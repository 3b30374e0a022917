// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes and rectangles in pixels.

mod rect;
mod size;

pub(crate) use rect::Rect;
pub(crate) use size::Size;
