// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers of encodings, and what a viewer takes.

/// An encoding or pseudo-encoding by its number (RFC 6143, 7.7 and 7.8; the others by the community wiki's
/// rfbproto.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encoding(pub i32);

impl Encoding {
    /// Raw (RFC 6143, 7.7.1).
    pub const RAW: Self = Self(0);
    /// CopyRect (RFC 6143, 7.7.2).
    pub const COPY_RECT: Self = Self(1);
    /// Hextile (RFC 6143, 7.7.4).
    pub const HEXTILE: Self = Self(5);
    /// Tight.
    pub const TIGHT: Self = Self(7);
    /// ZRLE (RFC 6143, 7.7.6).
    pub const ZRLE: Self = Self(16);
    /// DesktopSize (RFC 6143, 7.8.2).
    pub const DESKTOP_SIZE: Self = Self(-223);
    /// LastRect.
    pub const LAST_RECT: Self = Self(-224);
    /// Cursor (RFC 6143, 7.8.1).
    pub const CURSOR: Self = Self(-239);
    /// QEMU Extended Key Event.
    pub const QEMU_EXTENDED_KEY_EVENT: Self = Self(-258);
    /// QEMU LED State.
    pub const QEMU_LED_STATE: Self = Self(-261);
    /// DesktopName.
    pub const DESKTOP_NAME: Self = Self(-307);
    /// ExtendedDesktopSize.
    pub const EXTENDED_DESKTOP_SIZE: Self = Self(-308);
    /// Fence.
    pub const FENCE: Self = Self(-312);
    /// ContinuousUpdates.
    pub const CONTINUOUS_UPDATES: Self = Self(-313);
    /// Cursor With Alpha.
    pub const CURSOR_WITH_ALPHA: Self = Self(-314);
    /// Extended Mouse Buttons.
    pub const EXTENDED_MOUSE_BUTTONS: Self = Self(-316);
    /// VMware LED State.
    pub const VMWARE_LED_STATE: Self = Self(0x574d_5668);

    const COMPRESS_LEVEL_0: i32 = -256;
    const QUALITY_LEVEL_0: i32 = -32;

    /// Compression Level: 0 (least) to 9 (most).
    #[must_use]
    pub const fn compress_level(level: u8) -> Self {
        let level = if level > 9 { 9 } else { level };
        Self(Self::COMPRESS_LEVEL_0 + level as i32)
    }

    /// JPEG Quality Level: 0 to 9.
    #[must_use]
    pub const fn quality_level(level: u8) -> Self {
        let level = if level > 9 { 9 } else { level };
        Self(Self::QUALITY_LEVEL_0 + level as i32)
    }

    fn level_from(self, zero: i32) -> Option<u8> {
        let level = self.0.checked_sub(zero)?;
        u8::try_from(level).ok().filter(|level| *level <= 9)
    }
}

/// Encodings of pixels that this crate writes.
const PIXELS: [Encoding; 4] = [
    Encoding::RAW,
    Encoding::COPY_RECT,
    Encoding::ZRLE,
    Encoding::TIGHT,
];

/// Pseudo-encodings that this crate knows.
const PSEUDO: [Encoding; 12] = [
    Encoding::DESKTOP_SIZE,
    Encoding::LAST_RECT,
    Encoding::CURSOR,
    Encoding::QEMU_EXTENDED_KEY_EVENT,
    Encoding::QEMU_LED_STATE,
    Encoding::DESKTOP_NAME,
    Encoding::EXTENDED_DESKTOP_SIZE,
    Encoding::FENCE,
    Encoding::CONTINUOUS_UPDATES,
    Encoding::CURSOR_WITH_ALPHA,
    Encoding::EXTENDED_MOUSE_BUTTONS,
    Encoding::VMWARE_LED_STATE,
];

/// What a viewer's `SetEncodings` (RFC 6143, 7.5.2) means: of any number of encodings only those are kept that
/// this crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodingSet {
    /// Encodings of pixels, the preferred first.
    pixels: [Option<Encoding>; PIXELS.len()],
    /// A bit for each of [`PSEUDO`].
    pseudo: u16,
    compress_level: Option<u8>,
    quality_level: Option<u8>,
}

impl EncodingSet {
    /// Adds an encoding that is less preferred than those before. The first level of each kind counts.
    pub fn add(&mut self, encoding: Encoding) {
        if PIXELS.contains(&encoding) {
            let mut slots = self.pixels.iter_mut();
            if let Some(slot) = slots.find(|slot| slot.is_none_or(|known| known == encoding)) {
                *slot = Some(encoding);
            }
        } else if let Some(bit) = pseudo_bit(encoding) {
            self.pseudo |= bit;
        } else if let Some(level) = encoding.level_from(Encoding::COMPRESS_LEVEL_0) {
            self.compress_level.get_or_insert(level);
        } else if let Some(level) = encoding.level_from(Encoding::QUALITY_LEVEL_0) {
            self.quality_level.get_or_insert(level);
        }
    }

    /// Whether the viewer takes an encoding or pseudo-encoding. Raw is always taken (RFC 6143, 7.5.2).
    #[must_use]
    pub fn contains(&self, encoding: Encoding) -> bool {
        encoding == Encoding::RAW
            || self.pixels.contains(&Some(encoding))
            || pseudo_bit(encoding).is_some_and(|bit| self.pseudo & bit != 0)
    }

    /// The encoding for pixels that the viewer prefers: Raw, ZRLE or Tight.
    #[must_use]
    pub fn preferred(&self) -> Encoding {
        let mut pixels = self.pixels.iter().flatten().copied();
        pixels
            .find(|encoding| *encoding != Encoding::COPY_RECT)
            .unwrap_or(Encoding::RAW)
    }

    /// How much the viewer wants pixels compressed, 0 to 9; `None` where it did not say.
    #[must_use]
    pub fn compress_level(&self) -> Option<u8> {
        self.compress_level
    }

    /// The JPEG quality that the viewer wants, 0 to 9; `None`: lossless pixels only.
    #[must_use]
    pub fn quality_level(&self) -> Option<u8> {
        self.quality_level
    }
}

impl FromIterator<Encoding> for EncodingSet {
    fn from_iter<T: IntoIterator<Item = Encoding>>(encodings: T) -> Self {
        let mut set = Self::default();
        for encoding in encodings {
            set.add(encoding);
        }
        set
    }
}

fn pseudo_bit(encoding: Encoding) -> Option<u16> {
    let at = PSEUDO.iter().position(|known| *known == encoding)?;
    Some(1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_encoding_of_pixels_is_preferred() {
        let set: EncodingSet = [
            Encoding(9999),
            Encoding::COPY_RECT,
            Encoding::TIGHT,
            Encoding::ZRLE,
            Encoding::TIGHT,
            Encoding::RAW,
        ]
        .into_iter()
        .collect();
        assert_eq!(set.preferred(), Encoding::TIGHT);
        assert!(set.contains(Encoding::ZRLE) && set.contains(Encoding::COPY_RECT));
        assert!(!set.contains(Encoding(9999)));
    }

    #[test]
    fn who_names_nothing_gets_raw() {
        let set = EncodingSet::default();
        assert_eq!(set.preferred(), Encoding::RAW);
        assert!(set.contains(Encoding::RAW));
        assert!(!set.contains(Encoding::COPY_RECT));
        assert!(PSEUDO.iter().all(|pseudo| !set.contains(*pseudo)));
    }

    #[test]
    fn each_pseudo_encoding_is_kept_apart() {
        for pseudo in PSEUDO {
            let set: EncodingSet = [pseudo].into_iter().collect();
            let kept: Vec<_> = PSEUDO
                .into_iter()
                .filter(|other| set.contains(*other))
                .collect();
            assert_eq!(kept, [pseudo]);
        }
    }

    #[test]
    fn levels_are_0_to_9() {
        let set: EncodingSet = [-257, -246, -33, -22, -247, -256, -32]
            .into_iter()
            .map(Encoding)
            .collect();
        assert_eq!(set.compress_level(), Some(9));
        assert_eq!(set.quality_level(), Some(0));
        assert_eq!(Encoding::compress_level(200), Encoding(-247));
        assert_eq!(Encoding::quality_level(9), Encoding(-23));
        assert_eq!(EncodingSet::default().compress_level(), None);
        // Far from all levels, without an overflow.
        let far: EncodingSet = [i32::MIN, i32::MAX].into_iter().map(Encoding).collect();
        assert_eq!(far, EncodingSet::default());
    }
}
