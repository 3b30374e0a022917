// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The value of a record: fields in their order, without gaps. All numbers are little-endian.
//!
//! What a record consists of is its owner's. All owners read with these, so that each value that is cut, or has bytes behind
//! its last field, is refused.

/// Why the value of a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// It ends before its last field does.
    #[error("it is too short")]
    TooShort,
    /// It goes on after its last field.
    #[error("it is too long")]
    TooLong,
    /// A field has a value that its owner never writes. The text says which.
    #[error("{0}")]
    Content(&'static str),
}

/// Bytes of memory that a writer keeps for the next value.
const KEPT_LEN: usize = 64 << 10;

/// Reads a value to its end.
///
/// # Errors
/// Those of `fields`; [`ValueError::TooLong`] if it leaves bytes.
pub(crate) fn read<T, E: From<ValueError>>(
    value: &[u8],
    fields: impl FnOnce(&mut ValueReader<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let mut reader = ValueReader(value);
    let record = fields(&mut reader)?;
    match reader.0 {
        [] => Ok(record),
        _ => Err(ValueError::TooLong.into()),
    }
}

/// Reads the fields of a value. Each method takes the next one, and fails with [`ValueError::TooShort`] if there is
/// less left.
#[derive(Debug)]
pub(crate) struct ValueReader<'a>(&'a [u8]);

impl<'a> ValueReader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ValueError::TooShort)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ValueError> {
        self.array().map(u8::from_le_bytes)
    }

    /// A yes or no.
    ///
    /// # Errors
    /// If it is neither.
    pub(crate) fn bool(&mut self) -> Result<bool, ValueError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ValueError::Content("a yes or no is neither")),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ValueError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ValueError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ValueError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ValueError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(ValueError::TooShort)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes the fields of a value, one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueWriter(Vec<u8>);

impl ValueWriter {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, number: u8) -> &mut Self {
        self.bytes(&[number])
    }

    pub(crate) fn bool(&mut self, yes: bool) -> &mut Self {
        self.u8(yes.into())
    }

    pub(crate) fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn i32(&mut self, number: i32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// What was written.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Begins another value, in the same memory.
    pub(super) fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT_LEN);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::backend::continuity::layout;

    /// Checks that `values` are the bytes that this version of the state has: `known` is the version and a digest of them.
    #[track_caller]
    pub(crate) fn assert_version(values: &[u8], known: (u32, u64)) {
        // FNV-1a.
        let digest = values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let is = (layout::VERSION, digest);
        assert!(
            is == known,
            "records are written in another way: raise `layout::VERSION`, unless that was done since the last release; now \
             it is ({}, {:#x})",
            is.0,
            is.1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let mut writer = ValueWriter::default();
        writer.u8(1).bool(true).u16(0x0203).u32(0x0405_0607);
        writer.u64(u64::MAX - 1).i32(-5).bytes(b"abcd");
        let value = writer.as_bytes();
        assert_eq!(value[..8], [1, 1, 3, 2, 7, 6, 5, 4]);
        let read = read(value, |value| {
            assert_eq!(value.u8(), Ok(1));
            assert_eq!(value.bool(), Ok(true));
            assert_eq!(value.u16(), Ok(0x0203));
            assert_eq!(value.u32(), Ok(0x0405_0607));
            assert_eq!(value.u64(), Ok(u64::MAX - 1));
            assert_eq!(value.i32(), Ok(-5));
            assert_eq!(value.bytes(2), Ok(&b"ab"[..]));
            assert!(!value.is_empty());
            assert_eq!(value.rest(), b"cd");
            assert!(value.is_empty());
            Ok::<_, ValueError>(7)
        });
        assert_eq!(read, Ok(7));
    }

    #[test]
    fn values_that_are_cut_or_too_long_are_refused() {
        assert_eq!(read(&[1], |value| value.u16()), Err(ValueError::TooShort));
        assert_eq!(read(&[0; 3], |value| value.u16()), Err(ValueError::TooLong));
        assert_eq!(
            read(&[0; 3], |value| value.bytes(4).map(<[u8]>::len)),
            Err(ValueError::TooShort)
        );
        let not_a_bool = read(&[2], |value| value.bool());
        assert!(matches!(not_a_bool, Err(ValueError::Content(_))));
    }
}
