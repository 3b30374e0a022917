// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as a user writes them.

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number with a unit.
    #[error("not a size; a size is a number of bytes, or a number with K, M, G or T, such as 512M")]
    Malformed,
    /// It does not fit 64 bits.
    #[error("the size does not fit 64 bits")]
    TooLarge,
    /// It is 0.
    #[error("the size must not be 0")]
    Zero,
}

/// Reads a size in bytes: a whole number of bytes, or of the units K, M, G and T in either case, each 1024
/// of the one before, as QEMU and systemd count.
///
/// # Errors
/// Where the text is something else, 0, or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let unit = text.chars().last().map(|last| last.to_ascii_uppercase());
    let shift = match unit {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => 0,
    };
    let unit_len = usize::from(shift != 0);
    let digits = text.len().checked_sub(unit_len);
    let digits = digits.and_then(|end| text.get(..end)).unwrap_or_default();
    // `parse` takes a sign as well.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SizeError::Malformed);
    }
    let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
    match number.checked_mul(1 << shift) {
        None => Err(SizeError::TooLarge),
        Some(0) => Err(SizeError::Zero),
        Some(bytes) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_an_optional_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("64k", 64 << 10),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("2g", 2 << 30),
            ("1T", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "M", "-1", "+1", "1.5G", "1 G", "0x10", "1GB", "1MiB", "G1", "µ", "1µ",
        ] {
            assert_eq!(parse_size(text), Err(SizeError::Malformed), "{text}");
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999G"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge), "{text}");
        }
        assert_eq!(parse_size("0"), Err(SizeError::Zero));
        assert_eq!(parse_size("0G"), Err(SizeError::Zero));
    }
}
