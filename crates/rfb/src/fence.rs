// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `ClientFence` and `ServerFence` carry (community wiki: Fence).

/// A fence: the receiver sends it back once it did what the flags ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Bits of [`Fence::BLOCK_BEFORE`] and the others.
    pub flags: u32,
    len: u8,
    payload: [u8; Fence::PAYLOAD_MAX],
}

impl Fence {
    /// Messages before this one are done before the answer.
    pub const BLOCK_BEFORE: u32 = 1 << 0;
    /// Messages after this one wait for the answer.
    pub const BLOCK_AFTER: u32 = 1 << 1;
    /// The message after this one is done together with the answer.
    pub const SYNC_NEXT: u32 = 1 << 2;
    /// This asks for an answer; without it, it is one.
    pub const REQUEST: u32 = 1 << 31;
    /// The most bytes of a payload.
    pub const PAYLOAD_MAX: usize = 64;

    /// A fence with a payload; `None` where that is longer than 64 bytes.
    #[must_use]
    pub fn new(flags: u32, payload: &[u8]) -> Option<Self> {
        let mut kept = [0; Self::PAYLOAD_MAX];
        kept.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(Self {
            flags,
            len: u8::try_from(payload.len()).ok()?,
            payload: kept,
        })
    }

    /// What comes back with the answer.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload.get(..self.len.into()).unwrap_or_default()
    }

    /// The answer to a request: the flags that the wiki names, the request's bit cleared.
    #[must_use]
    pub fn answer(&self) -> Self {
        Self {
            flags: self.flags & (Self::BLOCK_BEFORE | Self::BLOCK_AFTER | Self::SYNC_NEXT),
            ..*self
        }
    }

    /// Appends the message, whose type is the same in both directions.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[Self::MESSAGE_TYPE, 0, 0, 0]);
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.push(self.len);
        out.extend_from_slice(self.payload());
    }

    pub(crate) const MESSAGE_TYPE: u8 = 248;
}
