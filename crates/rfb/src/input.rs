// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking values off the bytes that were read so far.

/// Takes `N` bytes, or none where there are fewer.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}

/// Takes `len` bytes, or none where there are fewer.
pub(crate) fn take_slice<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

/// Drops up to `len` bytes, and says how many are still to come.
pub(crate) fn skip(input: &mut &[u8], len: u32) -> u32 {
    let here = u32::try_from(input.len()).unwrap_or(u32::MAX).min(len);
    let here_len = usize::try_from(here).unwrap_or(input.len());
    *input = input.get(here_len..).unwrap_or_default();
    len - here
}
