// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks of an EDID (VESA E-EDID 1.4).

/// Size of an EDID block in bytes.
const BLOCK: usize = 128;
const HEADER: [u8; 8] = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
/// Where the preferred mode's timing lies, and how long each of the four descriptors is.
const DESCRIPTORS: usize = 54;
const DESCRIPTOR: usize = 18;
/// Descriptor tag of the monitor's name.
const NAME_TAG: u8 = 0xfc;

/// What an EDID says, once it has proved valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edid {
    /// The maker's three letters.
    pub vendor: String,
    /// The monitor's name, if it has one.
    pub name: Option<String>,
    /// Width of the preferred mode in pixels.
    pub width: u32,
    /// Height of the preferred mode in pixels.
    pub height: u32,
    /// Refresh rate of the preferred mode in mHz.
    pub refresh: u64,
    /// Width and height of the picture in cm, 0 if not told.
    pub size_cm: (u8, u8),
}

/// Why an EDID is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EdidError {
    /// Not a whole number of blocks, as many as the first says.
    #[error("{bytes} bytes where the EDID says {blocks} blocks of 128")]
    Size {
        /// How many there are.
        bytes: usize,
        /// How many blocks there should be.
        blocks: usize,
    },
    /// It does not begin as each EDID does.
    #[error("the header is {0:02x?}")]
    Header(Vec<u8>),
    /// A block's bytes do not sum up to 0.
    #[error("the sum of block {block} is {sum}, not 0")]
    Checksum {
        /// Which.
        block: usize,
        /// Modulo 256.
        sum: u8,
    },
    /// Not version 1.3 or 1.4.
    #[error("version {0}.{1}")]
    Version(u8, u8),
    /// The first descriptor is no timing.
    #[error("no preferred mode")]
    NoMode,
}

impl Edid {
    /// Checks `bytes` as a monitor driver does, and reads what the driver shows.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, EdidError> {
        let blocks = 1 + usize::from(bytes.get(126).copied().unwrap_or(0));
        if bytes.len() != blocks * BLOCK {
            return Err(EdidError::Size {
                bytes: bytes.len(),
                blocks,
            });
        }
        if bytes[..8] != HEADER {
            return Err(EdidError::Header(bytes[..8].to_vec()));
        }
        for (block, bytes) in bytes.chunks(BLOCK).enumerate() {
            let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            if sum != 0 {
                return Err(EdidError::Checksum { block, sum });
            }
        }
        if bytes[18] != 1 || !matches!(bytes[19], 3 | 4) {
            return Err(EdidError::Version(bytes[18], bytes[19]));
        }
        let timing = &bytes[DESCRIPTORS..DESCRIPTORS + DESCRIPTOR];
        // 10 kHz.
        let clock = u64::from(u16::from_le_bytes([timing[0], timing[1]]));
        let split = |low: u8, high: u8| u32::from(low) | u32::from(high) << 8;
        let (width, h_blank) = (
            split(timing[2], timing[4] >> 4),
            split(timing[3], timing[4] & 15),
        );
        let (height, v_blank) = (
            split(timing[5], timing[7] >> 4),
            split(timing[6], timing[7] & 15),
        );
        let total = u64::from(width + h_blank) * u64::from(height + v_blank);
        if clock == 0 || width == 0 || height == 0 {
            return Err(EdidError::NoMode);
        }
        let vendor = u16::from_be_bytes([bytes[8], bytes[9]]);
        let letter = |shift: u32| char::from(b'@' + (vendor >> shift & 31) as u8);
        let name = bytes[DESCRIPTORS..126]
            .chunks(DESCRIPTOR)
            .find(|d| d[..4] == [0, 0, 0, NAME_TAG])
            .map(|d| String::from_utf8_lossy(&d[5..]).trim_end().to_string());
        Ok(Self {
            vendor: [10, 5, 0].map(letter).iter().collect(),
            name,
            width,
            height,
            refresh: clock * 10_000 * 1000 / total,
            size_cm: (bytes[21], bytes[22]),
        })
    }

    /// A valid EDID of one block, for a display that answers with its own: maker "TST", this name
    /// (at most 13 letters) and mode (each below 4096 pixels), 60 Hz.
    pub fn make(name: &str, width: u32, height: u32) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK];
        bytes[..8].copy_from_slice(&HEADER);
        bytes[8..10].copy_from_slice(&(20_u16 << 10 | 19 << 5 | 20).to_be_bytes());
        (bytes[18], bytes[19]) = (1, 4);
        let (h_blank, v_blank) = (160, 40);
        let clock =
            (u64::from(width + h_blank) * u64::from(height + v_blank) * 60).div_ceil(10_000);
        let timing = &mut bytes[DESCRIPTORS..DESCRIPTORS + DESCRIPTOR];
        timing[..2].copy_from_slice(&(clock.min(65535) as u16).to_le_bytes());
        (timing[2], timing[3]) = (width as u8, h_blank as u8);
        timing[4] = ((width >> 8) << 4) as u8;
        (timing[5], timing[6]) = (height as u8, v_blank as u8);
        timing[7] = ((height >> 8) << 4) as u8;
        let descriptor = &mut bytes[DESCRIPTORS + DESCRIPTOR..DESCRIPTORS + 2 * DESCRIPTOR];
        descriptor.fill(b' ');
        descriptor[..5].copy_from_slice(&[0, 0, 0, NAME_TAG, 0]);
        for (to, from) in descriptor[5..].iter_mut().zip(name.bytes().chain([b'\n'])) {
            *to = from;
        }
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[127] = sum.wrapping_neg();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edid_is_parsed_as_it_was_made() {
        let edid = Edid::parse(&Edid::make("screen 1", 1920, 1080)).unwrap();
        assert_eq!((edid.width, edid.height), (1920, 1080));
        assert_eq!(edid.vendor, "TST");
        assert_eq!(edid.name.as_deref(), Some("screen 1"));
        assert!(edid.refresh.abs_diff(60_000) < 10, "{} mHz", edid.refresh);
    }

    #[test]
    fn edid_check_finds_each_flaw() {
        let good = Edid::make("screen", 800, 600);
        let bad = |position: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[position] = value;
            Edid::parse(&bytes).unwrap_err()
        };
        assert!(matches!(bad(0, 1), EdidError::Header(_)));
        assert!(matches!(bad(30, 1), EdidError::Checksum { block: 0, .. }));
        assert!(matches!(
            bad(126, 1),
            EdidError::Size {
                bytes: 128,
                blocks: 2
            }
        ));
        assert!(matches!(
            Edid::parse(&good[..127]),
            Err(EdidError::Size { .. })
        ));
        assert!(matches!(Edid::parse(&[]), Err(EdidError::Size { .. })));
    }
}
