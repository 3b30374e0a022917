// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Raw (RFC 6143, 7.7.1).

use crate::translate::Translator;
use crate::{FrameView, Rect};

pub(super) fn encode(
    translator: &Translator,
    rect: Rect,
    frame: &FrameView<'_>,
    out: &mut Vec<u8>,
) {
    out.reserve(rect.area() * translator.format().bytes_per_pixel());
    for row in frame.rows(rect) {
        translator.append_row(row, out);
    }
}
