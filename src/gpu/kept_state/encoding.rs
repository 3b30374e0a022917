// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The fields that records of the GPU have beside numbers.

use crate::backend::continuity::{ValueError, ValueReader, ValueWriter};
use crate::geometry::{Rect, Size};

/// Writes them.
pub(super) trait WriteFields {
    fn size(&mut self, size: Size);
    fn rect(&mut self, rect: Rect);
}

/// Reads them.
pub(super) trait ReadFields {
    fn size(&mut self) -> Result<Size, ValueError>;
    fn rect(&mut self) -> Result<Rect, ValueError>;
}

impl WriteFields for ValueWriter {
    fn size(&mut self, size: Size) {
        self.u32(size.width).u32(size.height);
    }

    fn rect(&mut self, rect: Rect) {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        self.u32(x).u32(y).u32(width).u32(height);
    }
}

impl ReadFields for ValueReader<'_> {
    fn size(&mut self) -> Result<Size, ValueError> {
        Ok(Size::new(self.u32()?, self.u32()?))
    }

    fn rect(&mut self) -> Result<Rect, ValueError> {
        Ok(Rect {
            x: self.u32()?,
            y: self.u32()?,
            width: self.u32()?,
            height: self.u32()?,
        })
    }
}
