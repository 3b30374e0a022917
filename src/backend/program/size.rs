//! Amounts of memory as a user writes them.

/// What is no amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number with a unit.
    #[error("not a size: a number of bytes, or one with K, M, G or T behind it, such as 512M")]
    Malformed,
    /// It is more than can be counted.
    #[error("more than 64 bits can count")]
    TooLarge,
    /// It is 0.
    #[error("a size of 0 leaves the guest nothing")]
    Zero,
}

/// The bytes that `text` tells: a whole number of bytes, or of the units K, M, G and T, each 1024
/// of the one before (as QEMU and systemd count), in capital or small letters.
///
/// # Errors
/// Where it is something else, 0, or does not fit 64 bits.
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
    // Not what `parse` takes besides: a sign.
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
    fn sizes_are_read_as_users_write_them() {
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
    fn what_is_no_size_is_refused() {
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
