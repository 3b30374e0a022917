// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The picture of a cursor in memory that outlives the process.

use crate::backend::continuity::{Arena, Extent};
use crate::gpu::resource::{CURSOR_LEN, CursorPixels};

/// Where the picture of a cursor lies. A new picture is written beside the one that the record names, and the record then
/// names it instead: a process that dies before that is valid leaves the old one whole.
#[derive(Debug, Default)]
pub(super) struct KeptPicture {
    named: Option<Extent>,
    spare: Option<Extent>,
}

impl KeptPicture {
    /// Writes `pixels`. Returns where they lie in `arena`, which the record is to name; `None` if there is no place.
    pub(super) fn write(&mut self, arena: &Arena, pixels: &CursorPixels) -> Option<u64> {
        let spare = self.spare.take();
        let mut extent = spare.or_else(|| arena.allocate(CURSOR_LEN))?;
        extent
            .get_mut(..CURSOR_LEN)?
            .copy_from_slice(pixels.as_slice());
        let offset = extent.offset();
        self.spare = self.named.replace(extent);
        Some(offset)
    }

    /// The picture that the record of a predecessor names; `None` if none can be there.
    pub(super) fn adopt(arena: &Arena, offset: u64) -> Option<(Self, CursorPixels)> {
        let extent = arena.adopt(offset, CURSOR_LEN)?;
        let mut pixels = Box::new([0; CURSOR_LEN]);
        pixels.copy_from_slice(extent.get(..CURSOR_LEN)?);
        let picture = Self {
            named: Some(extent),
            spare: None,
        };
        Some((picture, pixels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::kept_state::KeptState;

    #[test]
    fn picture_is_written_beside_the_one_that_is_named() {
        let mut state = KeptState::new().unwrap();
        let arena = |state: &mut KeptState| {
            let process = state.next_process().unwrap();
            process.arena(1 << 20).unwrap().unwrap()
        };
        let first = arena(&mut state);
        let mut picture = KeptPicture::default();
        let [a, b, c] = [1, 2, 3].map(|color| {
            let offset = picture.write(&first, &Box::new([color; CURSOR_LEN]));
            offset.unwrap()
        });
        assert!(a != b && a == c, "two places take turns");
        let second = arena(&mut state);
        let (_named, pixels) = KeptPicture::adopt(&second, b).unwrap();
        assert_eq!(*pixels, [2; CURSOR_LEN], "it was not written over");
        assert!(KeptPicture::adopt(&second, b).is_none(), "it is taken");
        assert!(KeptPicture::adopt(&second, u64::MAX - 4095).is_none());
    }
}
