// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The payloads of messages: structures of 32-bit words, and the features.

/// Bytes of a pixel.
pub const PIXEL_LEN: usize = 4;
/// Columns and rows of a cursor.
pub const CURSOR_SIZE: usize = 64;
/// Bytes of a cursor's pixels.
pub const CURSOR_PIXELS_LEN: usize = CURSOR_SIZE * CURSOR_SIZE * PIXEL_LEN;

/// A structure of 32-bit words, in the host's byte order.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u32,)+
        }

        impl $name {
            const WORDS: usize = [$(stringify!($field)),+].len();
            /// Bytes of the structure.
            pub const LEN: usize = 4 * Self::WORDS;

            /// The structure as bytes.
            #[must_use]
            pub fn encode(&self) -> [u8; Self::LEN] {
                let mut bytes = [0; Self::LEN];
                let words = [$(self.$field),+].map(u32::to_ne_bytes);
                for (to, from) in bytes.iter_mut().zip(words.iter().flatten()) {
                    *to = *from;
                }
                bytes
            }

            /// The structure at the start of `bytes`; `None` if they are too few.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                let mut words = bytes.chunks_exact(4);
                let mut next = || {
                    let word = words.next()?.try_into().ok()?;
                    Some(u32::from_ne_bytes(word))
                };
                Some(Self { $($field: next()?),+ })
            }
        }
    };
}

words! {
    /// The size of a head in pixels; 0 by 0 if it is off.
    Scanout {
        /// The head.
        scanout,
        /// Columns.
        width,
        /// Rows.
        height,
    }
}

words! {
    /// A rectangle within a head that has new pixels.
    Update {
        /// The head.
        scanout,
        /// Its first column.
        x,
        /// Its first row.
        y,
        /// Columns.
        width,
        /// Rows.
        height,
    }
}

words! {
    /// Where a cursor is: its upper left corner, as Linux sends it and QEMU draws it. Left of the head and above it the
    /// numbers wrap below 0.
    CursorPosition {
        /// The head.
        scanout,
        /// Column.
        x,
        /// Row.
        y,
    }
}

words! {
    /// A cursor's new shape, and where it is.
    CursorUpdate {
        /// The head.
        scanout,
        /// Column of its hot spot on the head.
        x,
        /// Row of its hot spot on the head.
        y,
        /// Column of the hot spot in the cursor.
        hot_x,
        /// Row of the hot spot in the cursor.
        hot_y,
    }
}

words! {
    /// The size that a head is to get.
    Resize {
        /// The head.
        scanout,
        /// Columns.
        width,
        /// Rows.
        height,
    }
}

/// The GPU's answer to [`Resize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeResult {
    /// The guest is told of the size, by a configuration change now or soon, or has it. It need not follow.
    Done,
    /// The guest's size is the VMM's, or the guest cannot be told.
    Refused,
    /// No head can have that size.
    InvalidSize,
    /// There is no such head.
    NoSuchScanout,
}

impl ResizeResult {
    /// Bytes of the answer's payload.
    pub const LEN: usize = 4;

    /// The answer's payload.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let code: u32 = match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::InvalidSize => 2,
            Self::NoSuchScanout => 3,
        };
        code.to_ne_bytes()
    }

    /// The answer of these bytes; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: [u8; Self::LEN]) -> Option<Self> {
        match u32::from_ne_bytes(bytes) {
            0 => Some(Self::Done),
            1 => Some(Self::Refused),
            2 => Some(Self::InvalidSize),
            3 => Some(Self::NoSuchScanout),
            _ => None,
        }
    }
}

/// Protocol features (`VHOST_USER_GPU_PROTOCOL_F_*`), as a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// The display answers `GET_EDID`.
    pub const EDID: Self = Self(1 << 0);
    /// The display takes `DMABUF_SCANOUT2`.
    pub const DMABUF2: Self = Self(1 << 1);
    /// The display may send [`RESIZE`](crate::request::RESIZE). Only consoles are asked for this extension.
    pub const RESIZE: Self = Self(1 << 32);

    /// Bytes of the payload.
    pub const LEN: usize = 8;

    /// The payload.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        self.0.to_ne_bytes()
    }

    /// The features of a payload.
    #[must_use]
    pub fn decode(bytes: [u8; Self::LEN]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }

    /// Whether all of `others` are among these.
    #[must_use]
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Those that are in either.
    #[must_use]
    pub fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_their_fields_in_order() {
        assert_eq!(
            [Scanout::LEN, Update::LEN, CursorPosition::LEN, Resize::LEN],
            [12, 20, 12, 12]
        );
        let update = CursorUpdate {
            scanout: 1,
            x: 2,
            y: 3,
            hot_x: 4,
            hot_y: u32::MAX,
        };
        let mut bytes = update.encode().to_vec();
        let words: Vec<u8> = [1, 2, 3, 4, u32::MAX]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        assert_eq!(bytes, words);
        // Pixels follow.
        bytes.extend([9; 16]);
        assert_eq!(CursorUpdate::decode(&bytes), Some(update));
        assert_eq!(CursorUpdate::decode(&bytes[..19]), None);
    }

    #[test]
    fn results_are_read_as_they_are_written() {
        for code in 0..5_u32 {
            let result = ResizeResult::decode(code.to_ne_bytes());
            assert_eq!(result.is_some(), code < 4);
            assert!(result.is_none_or(|result| result.encode() == code.to_ne_bytes()));
        }
    }

    #[test]
    fn features_are_masks() {
        let offered = Features::decode(0x1_0000_0005_u64.to_ne_bytes());
        assert!(offered.contains(Features::RESIZE.union(Features::EDID)));
        assert!(!offered.contains(Features::DMABUF2));
        let common = offered.intersection(Features::RESIZE);
        assert_eq!(common.encode(), (1_u64 << 32).to_ne_bytes());
    }
}
