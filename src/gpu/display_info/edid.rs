// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Generates the EDID (VESA E-EDID 1.4) of a display if the front-end has none.

/// Bytes of an EDID without extensions.
pub(super) const LEN: usize = 128;

/// Most columns or rows of a detailed timing (12 bits).
const MAX_ACTIVE: u32 = 4095;
/// Lowest pixel clock of a detailed timing, in Hz.
const MIN_CLOCK: u64 = 10_000_000;
/// Highest pixel clock of a detailed timing, in Hz (16 bits of 10 kHz).
const MAX_CLOCK: u64 = 655_350_000;
/// Preferred refresh rate, in Hz.
const REFRESH: u64 = 60;
/// Steps of a CVT pixel clock, in Hz.
const CLOCK_STEP: u64 = 250_000;
/// Dots per inch of a display of unknown size.
const DPI: u32 = 96;

/// Sizes at 60 Hz that the driver can choose besides the preferred one, with their place in the EDID: a
/// bit of the established timings, or the aspect ratio of a standard timing.
const OTHER_SIZES: [(u32, u32, Timing); 10] = [
    (640, 480, Timing::Established(0, 0x20)),
    (800, 600, Timing::Established(0, 0x01)),
    (1024, 768, Timing::Established(1, 0x08)),
    (1280, 720, Timing::Standard(3)),
    (1280, 800, Timing::Standard(0)),
    (1280, 1024, Timing::Standard(2)),
    (1440, 900, Timing::Standard(0)),
    (1600, 1200, Timing::Standard(1)),
    (1680, 1050, Timing::Standard(0)),
    (1920, 1080, Timing::Standard(3)),
];

#[derive(Clone, Copy)]
enum Timing {
    Established(usize, u8),
    Standard(u8),
}

/// A display mode with CVT reduced blanking (VESA CVT 1.2, version 1 of reduced blanking).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cvt {
    width: u32,
    height: u32,
    /// Pixel clock in Hz: a multiple of 10 kHz, as in the descriptor.
    clock: u64,
    vertical_sync: u32,
    vertical_blank: u32,
}

impl Cvt {
    const FRONT: u32 = 48;
    const SYNC: u32 = 32;
    const BLANK: u32 = 160;
    const VERTICAL_FRONT: u32 = 3;
    const VERTICAL_BACK_LEAST: u32 = 6;
    /// Least vertical blanking, in microseconds.
    const VERTICAL_BLANK_TIME: u64 = 460;

    /// The mode of this size at 60 Hz, or less if the pixel clock would be too high. Sizes beyond a
    /// detailed timing become the largest of the same proportions.
    fn new(width: u32, height: u32) -> Self {
        let (width, height) = fitting(width, height);
        let vertical_sync = match () {
            () if width * 3 == height * 4 => 4,
            () if width * 9 == height * 16 => 5,
            () if width * 10 == height * 16 => 6,
            () if width * 4 == height * 5 || width * 9 == height * 15 => 7,
            () => 10,
        };
        // Time of a line: a frame without the least blanking, divided by the visible lines.
        let visible_time = 1_000_000 - Self::VERTICAL_BLANK_TIME * REFRESH;
        let lines = Self::VERTICAL_BLANK_TIME * REFRESH * u64::from(height) / visible_time + 1;
        let least = Self::VERTICAL_FRONT + vertical_sync + Self::VERTICAL_BACK_LEAST;
        // Small modes get more blanking: their pixel clock would be too low otherwise.
        let total_width = u64::from(width + Self::BLANK);
        let slow = (MIN_CLOCK / REFRESH / total_width + 1).saturating_sub(height.into());
        let lines = lines.max(slow).max(least.into());
        let vertical_blank = u32::try_from(lines).unwrap_or(least);
        let total = total_width * u64::from(height + vertical_blank);
        let clock = (total * REFRESH / CLOCK_STEP * CLOCK_STEP).clamp(MIN_CLOCK, MAX_CLOCK);
        Self {
            width,
            height,
            clock,
            vertical_sync,
            vertical_blank,
        }
    }

    /// Lines per second.
    fn line_rate(&self) -> u64 {
        self.clock / u64::from(self.width + Self::BLANK)
    }

    /// Frames per second.
    fn refresh(&self) -> u64 {
        self.line_rate() / u64::from(self.height + self.vertical_blank)
    }

    fn descriptor(&self) -> [u8; 18] {
        let clock = (self.clock / 10_000) as u16;
        let [clock_low, clock_high] = clock.to_le_bytes();
        let (width_mm, height_mm) = (millimetres(self.width), millimetres(self.height));
        let low = |n: u32| (n & 0xff) as u8;
        let high = |upper: u32, lower: u32| ((upper >> 4 & 0xf0) | (lower >> 8 & 0x0f)) as u8;
        [
            clock_low,
            clock_high,
            low(self.width),
            low(Self::BLANK),
            high(self.width, Self::BLANK),
            low(self.height),
            low(self.vertical_blank),
            high(self.height, self.vertical_blank),
            low(Self::FRONT),
            low(Self::SYNC),
            (Self::VERTICAL_FRONT << 4 | self.vertical_sync) as u8,
            0,
            low(width_mm),
            low(height_mm),
            high(width_mm, height_mm),
            0,
            0,
            // Digital separate sync, horizontal positive, vertical negative: reduced blanking.
            0x1a,
        ]
    }
}

/// The largest size of these proportions that fits a detailed timing.
fn fitting(width: u32, height: u32) -> (u32, u32) {
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let longest = width.max(height).max(MAX_ACTIVE.into());
    let side = |side: u64| (side * u64::from(MAX_ACTIVE) / longest).max(1) as u32;
    (side(width), side(height))
}

fn millimetres(pixels: u32) -> u32 {
    (pixels * 254 / (DPI * 10)).max(1)
}

fn centimetres(pixels: u32) -> u8 {
    (millimetres(pixels) / 10).clamp(1, 255) as u8
}

/// The EDID of the display on scanout `scanout` that prefers `width` by `height` pixels.
pub(super) fn edid(scanout: u32, width: u32, height: u32) -> [u8; LEN] {
    let mode = Cvt::new(width, height);
    let others: Vec<_> = OTHER_SIZES
        .into_iter()
        .filter(|(w, h, _)| *w <= mode.width && *h <= mode.height)
        .collect();

    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend([0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]);
    bytes.extend(manufacturer(*b"LNX").to_be_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend((scanout.saturating_add(1)).to_le_bytes());
    // No week; model year.
    bytes.extend([0xff, (2025 - 1990) as u8]);
    bytes.extend([1, 4]);
    // Digital, 8 bits per colour, undefined interface.
    bytes.push(0xa0);
    bytes.extend([centimetres(mode.width), centimetres(mode.height)]);
    // Gamma 2.2; RGB 4:4:4, sRGB, the preferred timing is the native one.
    bytes.extend([220 - 100, 0x06]);
    // Primaries and white point of sRGB.
    bytes.extend([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);

    let mut established = [0; 3];
    let mut standard = Vec::new();
    for (width, _, timing) in &others {
        match *timing {
            Timing::Established(byte, bit) => {
                if let Some(byte) = established.get_mut(byte) {
                    *byte |= bit;
                }
            }
            Timing::Standard(aspect) => standard.extend([(width / 8 - 31) as u8, aspect << 6]),
        }
    }
    standard.resize(16, 0x01);
    bytes.extend(established);
    bytes.extend(standard);

    bytes.extend(mode.descriptor());
    bytes.extend(text(0xfc, &format!("vhost-user {scanout}")));
    bytes.extend(text(0xff, &format!("{}", scanout.saturating_add(1))));
    bytes.extend(range_limits(&mode, others.iter().map(|(w, h, _)| (*w, *h))));

    // No extensions.
    bytes.push(0);
    let sum = bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
    bytes.push(sum.wrapping_neg());
    let mut edid = [0; LEN];
    for (to, from) in edid.iter_mut().zip(bytes) {
        *to = from;
    }
    edid
}

/// A manufacturer id: three letters of five bits each.
fn manufacturer(letters: [u8; 3]) -> u16 {
    letters
        .into_iter()
        .fold(0, |id, letter| id << 5 | u16::from(letter & 0x1f))
}

/// A display descriptor with at most 13 characters.
fn text(tag: u8, text: &str) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    descriptor[..5].copy_from_slice(&[0, 0, 0, tag, 0]);
    let end = std::iter::once(b'\n');
    for (to, from) in descriptor[5..].iter_mut().zip(text.bytes().chain(end)) {
        *to = from;
    }
    descriptor
}

/// Display range limits that include the preferred mode and the `others`.
fn range_limits(mode: &Cvt, others: impl Iterator<Item = (u32, u32)>) -> [u8; 18] {
    // The other sizes have VESA's timings, without reduced blanking.
    const OTHERS_LINES: (u64, u64) = (31, 76);
    const OTHERS_CLOCK: u64 = 170_000_000;
    let preferred = mode.line_rate() / 1000;
    let any_other = others.count() != 0;
    let (lowest, highest, clock) = if any_other {
        (
            preferred.min(OTHERS_LINES.0),
            (preferred + 1).max(OTHERS_LINES.1),
            mode.clock.max(OTHERS_CLOCK),
        )
    } else {
        (preferred, preferred + 1, mode.clock)
    };
    let refresh = mode.refresh();
    let byte = |n: u64| n.clamp(1, 255) as u8;
    let mut descriptor = [b' '; 18];
    descriptor[..12].copy_from_slice(&[
        0,
        0,
        0,
        0xfd,
        0,
        byte(refresh.min(REFRESH - 1)),
        byte((refresh + 1).max(REFRESH + 1)),
        byte(lowest),
        byte(highest),
        byte(clock.div_ceil(10_000_000)),
        // Range limits only, no timing formula.
        0x01,
        b'\n',
    ]);
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(u32, u32); 14] = [
        (1, 1),
        (16, 16),
        (640, 480),
        (800, 600),
        (1024, 768),
        (1280, 800),
        (1366, 768),
        (1920, 1080),
        (2560, 1440),
        (3440, 1440),
        (3840, 2160),
        (1080, 1920),
        (5120, 2880),
        (u32::MAX, u32::MAX),
    ];

    fn preferred(edid: &[u8; LEN]) -> (u32, u32) {
        let both =
            |low: usize, high: usize| u32::from(edid[low]) | u32::from(edid[high] & 0xf0) << 4;
        (both(56, 58), both(59, 61))
    }

    #[test]
    fn blocks_of_every_size_are_valid() {
        for (width, height) in SIZES {
            let edid = edid(3, width, height);
            assert_eq!(edid[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
            let sum = edid.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
            assert_eq!(sum, 0, "{width}x{height}");
            let expected = match (width, height) {
                (5120, 2880) => (4095, 2303),
                (u32::MAX, u32::MAX) => (4095, 4095),
                fits => fits,
            };
            assert_eq!(preferred(&edid), expected);
            let clock = u32::from(edid[54]) | u32::from(edid[55]) << 8;
            assert!(clock >= 1000, "{width}x{height}: {clock}");
        }
    }

    #[test]
    fn full_hd_has_the_timing_of_cvt() {
        // VESA's CVT generator: 1920x1080 reduced blanking has 138.5 MHz and 1111 lines.
        let mode = Cvt::new(1920, 1080);
        assert_eq!(mode.clock, 138_500_000);
        assert_eq!(mode.vertical_blank, 31);
        assert_eq!(mode.vertical_sync, 5);
        assert_eq!(mode.refresh(), 59);
    }

    #[test]
    fn clocks_beyond_the_highest_lower_the_refresh_rate() {
        let mode = Cvt::new(4095, 4095);
        assert_eq!(mode.clock, MAX_CLOCK);
        assert!((30..60).contains(&mode.refresh()));
        assert_eq!(Cvt::new(3840, 2160).refresh(), 59);
    }

    #[test]
    fn names_differ_by_scanout() {
        let first = edid(0, 1024, 768);
        let last = edid(15, 1024, 768);
        assert!(first.windows(12).any(|w| w == b"vhost-user 0"));
        assert!(last.windows(13).any(|w| w == b"vhost-user 15"));
        assert_ne!(first[12..16], last[12..16]);
    }

    #[test]
    fn sizes_are_at_most_the_preferred_one() {
        let small = edid(0, 800, 600);
        assert_eq!(small[35..38], [0x21, 0, 0]);
        assert!(small[38..54].iter().all(|b| *b == 1));
        let large = edid(0, 1920, 1080);
        assert_eq!(large[35..38], [0x21, 0x08, 0]);
        assert_eq!(large[38..40], [(1280 / 8 - 31) as u8, 3 << 6]);
    }
}
