// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header of a message.

/// The flag of replies.
pub const REPLY: u32 = 1 << 2;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is, see [`request`](crate::request).
    pub request: u32,
    /// [`REPLY`], or 0 for a request.
    pub flags: u32,
    /// Bytes of the payload, pixels included.
    pub size: u32,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 12;

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let words = [self.request, self.flags, self.size].map(u32::to_ne_bytes);
        for (to, from) in bytes.iter_mut().zip(words.iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// The header of these bytes, whatever it says.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            request: u32::from_ne_bytes([a, b, c, d]),
            flags: u32::from_ne_bytes([e, f, g, h]),
            size: u32::from_ne_bytes([i, j, k, l]),
        }
    }

    /// Whether it is the header of a reply.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_three_words() {
        let header = Header {
            request: 7,
            flags: REPLY,
            size: 0x0102_0304,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..4], 7_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], 4_u32.to_ne_bytes());
        assert_eq!(bytes[8..], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!(Header::decode(&bytes), header);
        assert!(header.is_reply());
    }
}
