// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Display information and EDID (virtio 1.2, 5.7.6.8): what the front-end is asked, what it replies,
//! and what the driver gets where the front-end has no reply.

use super::kept_state::{KeptState, KeptStateError, SizesRecord};
use super::protocol::{DisplayInfo, MAX_EDID_LEN};
use crate::geometry::Size;

mod edid;
mod resolutions;

pub use resolutions::{ResolutionError, Resolutions};

/// A query that the front-end answers (vhost-user-gpu.rst, `VHOST_USER_GPU_GET_DISPLAY_INFO` and
/// `VHOST_USER_GPU_GET_EDID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unreachable_pub)] // For `gpu::fuzzing`.
pub enum DisplayQuery {
    /// The modes of all displays.
    DisplayInfo,
    /// The EDID of the display on this scanout.
    Edid(u32),
}

/// The front-end's reply to a [`DisplayQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(unreachable_pub)] // For `gpu::fuzzing`.
pub enum DisplayReply {
    /// The modes; also the reply to [`DisplayQuery::Edid`] where the front-end has no EDID.
    DisplayInfo(Box<DisplayInfo>),
    /// The EDID, at most [`MAX_EDID_LEN`] bytes.
    Edid(Vec<u8>),
    /// The front-end did not reply, or there is none.
    Nothing,
}

/// The modes that the front-end told last; until then, the default ones, or those that consoles asked for.
#[derive(Debug, Default)]
pub(super) struct LastDisplayInfo {
    modes: DisplayInfo,
    /// What the driver has read.
    read: Option<DisplayInfo>,
    kept: KeptState,
}

impl LastDisplayInfo {
    /// The modes of `resolutions` until the front-end tells others, kept in `kept` for a successor; or what a predecessor
    /// left there.
    ///
    /// # Errors
    /// If that cannot be read.
    pub(super) fn resume(
        resolutions: &Resolutions,
        kept: KeptState,
    ) -> Result<Self, KeptStateError> {
        let left = kept.get::<SizesRecord>(0)?.unwrap_or(SizesRecord {
            modes: resolutions.display_info(),
            read: None,
        });
        Ok(Self {
            modes: left.modes,
            read: left.read,
            kept,
        })
    }

    fn keep(&self) {
        let Self { modes, read, .. } = *self;
        self.kept.put(0, &SizesRecord { modes, read });
    }

    /// The modes to answer GET_DISPLAY_INFO with.
    pub(super) fn display_info(&mut self, reply: DisplayReply) -> &DisplayInfo {
        self.update(&reply);
        self.read = Some(self.modes);
        self.keep();
        &self.modes
    }

    /// Changes the size of a display that is enabled. Those on its right make room, or move up. Returns whether it had
    /// another size.
    pub(super) fn resize(&mut self, scanout: u32, size: Size) -> bool {
        let mode = usize::try_from(scanout).ok();
        let mode = mode.and_then(|index| self.modes.0.get_mut(index));
        let Some(mode) = mode.filter(|mode| mode.enabled) else {
            return false;
        };
        let before = Size::new(mode.rect.width, mode.rect.height);
        (mode.rect.width, mode.rect.height) = (size.width, size.height);
        self.modes.arrange();
        self.keep();
        before != size
    }

    /// Whether the driver has read any modes.
    pub(super) fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// Whether the driver has read these modes.
    pub(super) fn is_known(&self) -> bool {
        self.read == Some(self.modes)
    }

    /// A new driver has read nothing.
    pub(super) fn forget_driver(&mut self) {
        self.read = None;
        self.keep();
    }

    /// The EDID to answer GET_EDID for `scanout` with: the front-end's, or one generated for its mode.
    pub(super) fn edid(&mut self, scanout: u32, reply: DisplayReply) -> Vec<u8> {
        self.update(&reply);
        match reply {
            DisplayReply::Edid(edid) => edid,
            DisplayReply::DisplayInfo(_) | DisplayReply::Nothing => self.generate_edid(scanout),
        }
    }

    fn update(&mut self, reply: &DisplayReply) {
        if let DisplayReply::DisplayInfo(modes) = reply {
            self.modes = **modes;
            self.keep();
        }
    }

    /// An EDID for the mode of `scanout`; for the default mode where the display is disabled or empty.
    fn generate_edid(&self, scanout: u32) -> Vec<u8> {
        let default = DisplayInfo::default();
        let mode = self
            .modes
            .enabled(scanout)
            .filter(|mode| !mode.rect.is_empty());
        let rect = mode
            .or(default.enabled(0))
            .map_or_else(Default::default, |mode| mode.rect);
        edid::edid(scanout, rect.width, rect.height).to_vec()
    }
}

// A generated EDID fits the response.
const _: () = assert!(edid::LEN <= MAX_EDID_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Rect;

    #[test]
    fn the_front_ends_edid_is_passed_on() {
        let mut displays = LastDisplayInfo::default();
        let reply = DisplayReply::Edid(vec![3; 256]);
        assert_eq!(displays.edid(1, reply), [3; 256]);
    }

    #[test]
    fn generated_edids_follow_the_last_display_info() {
        let mut displays = LastDisplayInfo::default();
        let default = edid::edid(1, 1280, 800);
        assert_eq!(displays.edid(1, DisplayReply::Nothing), default);

        let mut modes = DisplayInfo::default();
        modes.0[1] = modes.0[0];
        modes.0[1].rect = Rect::sized(1600, 900);
        let reply = DisplayReply::DisplayInfo(Box::new(modes));
        let expected = edid::edid(1, 1600, 900);
        assert_eq!(displays.edid(1, reply), expected);
        assert_eq!(displays.edid(1, DisplayReply::Nothing), expected);
        assert_eq!(*displays.display_info(DisplayReply::Nothing), modes);
    }

    #[test]
    fn resized_display_moves_those_on_its_right() {
        let resolutions = "800x600,640x480,320x200".parse().unwrap();
        let mut displays = LastDisplayInfo::resume(&resolutions, KeptState::default()).unwrap();
        assert!(!displays.is_read());
        assert!(!displays.resize(1, Size::new(640, 480)));
        displays.display_info(DisplayReply::Nothing);
        assert!(displays.is_read() && displays.is_known());
        assert!(displays.resize(1, Size::new(1000, 500)));
        assert!(displays.is_read() && !displays.is_known());
        let modes = *displays.display_info(DisplayReply::Nothing);
        let rects: Vec<_> = modes.0.iter().filter(|mode| mode.enabled).collect();
        let rects: Vec<_> = rects.iter().map(|mode| mode.rect).collect();
        let expected = [(0, 800, 600), (800, 1000, 500), (1800, 320, 200)];
        let expected = expected.map(|(x, width, height)| Rect {
            x,
            ..Rect::sized(width, height)
        });
        assert_eq!(rects, expected);
        assert!(displays.is_known());
        let expected = edid::edid(1, 1000, 500);
        assert_eq!(displays.edid(1, DisplayReply::Nothing), expected);

        // There and back again is nothing new.
        assert!(displays.resize(0, Size::new(1, 1)));
        assert!(displays.resize(0, Size::new(800, 600)));
        assert!(displays.is_known());
        displays.forget_driver();
        assert!(!displays.is_read() && !displays.is_known());
        for scanout in [3, 16, u32::MAX] {
            assert!(!displays.resize(scanout, Size::new(1, 1)));
        }
        assert_eq!(*displays.display_info(DisplayReply::Nothing), modes);
    }

    #[test]
    fn disabled_and_empty_displays_get_the_default_mode() {
        let mut modes = DisplayInfo::default();
        modes.0[1].enabled = true;
        modes.0[2].rect = Rect::sized(1600, 900);
        let mut displays = LastDisplayInfo::default();
        displays.display_info(DisplayReply::DisplayInfo(Box::new(modes)));
        for scanout in [1, 2, 16, u32::MAX] {
            let expected = edid::edid(scanout, 1280, 800);
            assert_eq!(displays.edid(scanout, DisplayReply::Nothing), expected);
        }
    }
}
