// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes and rectangles as RFB has them.

use crate::geometry::Rect;

/// A number within a picture, as RFB has it. All sizes of pictures fit.
pub(super) fn to_u16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// A rectangle within a picture, as RFB has it.
pub(super) fn to_wire(rect: Rect) -> rfb::Rect {
    rfb::Rect::new(
        to_u16(rect.x),
        to_u16(rect.y),
        to_u16(rect.width),
        to_u16(rect.height),
    )
}

/// A rectangle that a viewer sent.
pub(super) fn from_wire(rect: rfb::Rect) -> Rect {
    Rect {
        x: rect.x.into(),
        y: rect.y.into(),
        width: rect.width.into(),
        height: rect.height.into(),
    }
}
