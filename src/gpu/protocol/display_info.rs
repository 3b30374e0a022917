// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The modes of all displays (`struct virtio_gpu_resp_display_info`; virtio 1.2, 5.7.6.8).

use super::{HEADER_LEN, MAX_SCANOUTS, ReadError, RequestReader};
use crate::geometry::Rect;

/// Bytes of one mode.
const MODE_LEN: usize = 24;
/// Bytes of all modes.
pub(crate) const MODES_LEN: usize = MODE_LEN * MAX_SCANOUTS;

/// The mode of one display (`struct virtio_gpu_display_one`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DisplayMode {
    /// Position among the other displays, and size in pixels.
    pub(crate) rect: Rect,
    /// Whether the user has enabled the display.
    pub(crate) enabled: bool,
    /// `flags`, passed on unchanged.
    pub(crate) flags: u32,
}

/// The modes of the displays on all scanouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unreachable_pub)] // For `gpu::fuzzing`.
pub struct DisplayInfo(pub(crate) [DisplayMode; MAX_SCANOUTS]);

impl Default for DisplayInfo {
    /// One display of QEMU's default size.
    fn default() -> Self {
        let mut modes = [DisplayMode::default(); MAX_SCANOUTS];
        modes[0] = DisplayMode {
            rect: Rect::sized(1280, 800),
            enabled: true,
            flags: 0,
        };
        Self(modes)
    }
}

impl DisplayInfo {
    /// Bytes of a response with its header.
    pub(crate) const RESPONSE_LEN: usize = HEADER_LEN + MODES_LEN;

    /// Reads a response with its header.
    ///
    /// # Errors
    /// If `response` is too short.
    pub(crate) fn decode_response(response: &[u8]) -> Result<Self, ReadError> {
        let mut reader = RequestReader::new(response);
        reader.header()?;
        let mut modes = [DisplayMode::default(); MAX_SCANOUTS];
        for mode in &mut modes {
            let rect = reader.rect()?;
            let [enabled, flags] = reader.words()?;
            *mode = DisplayMode {
                rect,
                enabled: enabled != 0,
                flags,
            };
        }
        Ok(Self(modes))
    }

    /// The mode of the display on `scanout`, if it is enabled.
    pub(crate) fn enabled(&self, scanout: u32) -> Option<&DisplayMode> {
        let mode = self.0.get(usize::try_from(scanout).ok()?)?;
        mode.enabled.then_some(mode)
    }

    /// Places the enabled displays side by side, from left to right.
    pub(crate) fn arrange(&mut self) {
        let mut x: u32 = 0;
        for mode in self.0.iter_mut().filter(|mode| mode.enabled) {
            mode.rect.x = x;
            x = x.saturating_add(mode.rect.width);
        }
    }

    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        for mode in &self.0 {
            let Rect {
                x,
                y,
                width,
                height,
            } = mode.rect;
            for field in [x, y, width, height, mode.enabled.into(), mode.flags] {
                bytes.extend(field.to_le_bytes());
            }
        }
    }
}
