// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages from a backend to a display.

use super::super::Rect;

/// A backend's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "named as in the protocol")]
pub enum Request {
    GetProtocolFeatures = 1,
    SetProtocolFeatures = 2,
    GetDisplayInfo = 3,
    CursorPos = 4,
    CursorPosHide = 5,
    CursorUpdate = 6,
    Scanout = 7,
    Update = 8,
    DmabufScanout = 9,
    DmabufUpdate = 10,
    GetEdid = 11,
    DmabufScanout2 = 12,
}

impl Request {
    const ALL: [Self; 12] = [
        Self::GetProtocolFeatures,
        Self::SetProtocolFeatures,
        Self::GetDisplayInfo,
        Self::CursorPos,
        Self::CursorPosHide,
        Self::CursorUpdate,
        Self::Scanout,
        Self::Update,
        Self::DmabufScanout,
        Self::DmabufUpdate,
        Self::GetEdid,
        Self::DmabufScanout2,
    ];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u32 == number)
    }

    /// Size of the message without pixels, in bytes.
    pub(super) fn fixed_size(self) -> usize {
        match self {
            Self::GetProtocolFeatures | Self::GetDisplayInfo => 0,
            Self::SetProtocolFeatures => 8,
            Self::GetEdid => 4,
            Self::CursorPos | Self::CursorPosHide | Self::Scanout => 12,
            Self::CursorUpdate | Self::Update | Self::DmabufUpdate => 20,
            Self::DmabufScanout => 40,
            Self::DmabufScanout2 => 48,
        }
    }
}

/// A message as it was received; pixels are drawn, not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it was.
    pub request: Request,
    /// Its fields, in their order; 0 where it has none.
    pub words: [u32; 12],
    /// Its size in bytes, header and pixels included.
    pub size: usize,
}

impl Received {
    /// The scanout it is about; every message but the questions about the whole has one.
    pub fn scanout(&self) -> u32 {
        self.words[0]
    }

    /// The rectangle of an UPDATE or DMABUF_UPDATE.
    pub fn rect(&self) -> Rect {
        let [_, x, y, width, height, ..] = self.words;
        Rect {
            x,
            y,
            width,
            height,
        }
    }
}
