// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sizes of the guest's heads where the VMM gives no display.

use std::str::FromStr;

use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{DisplayInfo, DisplayMode, MAX_SCANOUTS};

/// Most columns or rows of a head.
const MAX_SIDE: u32 = 16384;

/// The sizes of the guest's heads where the VMM gives no display: 1 to 16, side by side. By default there is one of 1280
/// by 800.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolutions(Vec<Size>);

/// Why a text is no list of sizes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolutionError {
    /// An entry is no size.
    #[error("\"{}\" is no size: give WIDTHxHEIGHT, such as 1920x1080, each from 1 to {MAX_SIDE}", conventions::printable(.0))]
    NoSize(String),
    /// There are too many.
    #[error("{0} sizes are too many: a GPU has at most {MAX_SCANOUTS} heads")]
    TooMany(usize),
}

impl Default for Resolutions {
    fn default() -> Self {
        Self(vec![Size::new(1280, 800)])
    }
}

impl Resolutions {
    /// How many heads there are.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.0.len()
    }

    /// Whether a head can have this size.
    pub(crate) fn is_valid(size: Size) -> bool {
        let sides = 1..=MAX_SIDE;
        sides.contains(&size.width) && sides.contains(&size.height)
    }

    /// The modes of the heads, from left to right.
    pub(crate) fn display_info(&self) -> DisplayInfo {
        let mut modes = [DisplayMode::default(); MAX_SCANOUTS];
        for (mode, size) in modes.iter_mut().zip(&self.0) {
            *mode = DisplayMode {
                rect: Rect::sized(size.width, size.height),
                enabled: true,
                flags: 0,
            };
        }
        let mut info = DisplayInfo(modes);
        info.arrange();
        info
    }
}

impl FromStr for Resolutions {
    type Err = ResolutionError;

    /// `WxH[,WxH...]`.
    fn from_str(text: &str) -> Result<Self, ResolutionError> {
        let sizes: Result<Vec<_>, _> = text.split(',').map(size).collect();
        let sizes = sizes?;
        if sizes.len() > MAX_SCANOUTS {
            return Err(ResolutionError::TooMany(sizes.len()));
        }
        Ok(Self(sizes))
    }
}

fn size(text: &str) -> Result<Size, ResolutionError> {
    let side = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    text.split_once('x')
        .and_then(|(width, height)| Some(Size::new(side(width)?, side(height)?)))
        .filter(|size| Resolutions::is_valid(*size))
        .ok_or_else(|| ResolutionError::NoSize(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_laid_out_side_by_side() {
        let sizes: Resolutions = "1920x1080,800x600".parse().unwrap();
        assert_eq!(sizes.heads(), 2);
        let info = sizes.display_info();
        let rects = [Rect::sized(1920, 1080), Rect::sized(800, 600)];
        assert_eq!(info.enabled(0).unwrap().rect, rects[0]);
        let second = info.enabled(1).unwrap().rect;
        assert_eq!(
            second,
            Rect {
                x: 1920,
                ..rects[1]
            }
        );
        assert!(info.enabled(2).is_none());
        assert_eq!(
            Resolutions::default().display_info(),
            DisplayInfo::default()
        );
    }

    #[test]
    fn what_no_head_can_have_is_refused() {
        for bad in [
            "",
            "1920",
            "x",
            "0x1",
            "1x0",
            "16385x1",
            "1x16385",
            "+1x1",
            "1x-1",
            "1x1,",
            "1X1",
            " 1x1",
            "1x1x1",
            "99999999999x1",
        ] {
            assert!(bad.parse::<Resolutions>().is_err(), "{bad:?}");
        }
        let many = vec!["1x1"; 17].join(",");
        assert_eq!(
            many.parse::<Resolutions>(),
            Err(ResolutionError::TooMany(17))
        );
        let most = vec!["16384x16384"; 16].join(",");
        assert_eq!(most.parse::<Resolutions>().unwrap().heads(), 16);
    }
}
