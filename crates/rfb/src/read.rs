// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading values from a server.

use std::io::{self, Read};

/// Reads `N` bytes.
pub(crate) fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn u8(reader: &mut impl Read) -> io::Result<u8> {
    array(reader).map(|[byte]| byte)
}

pub(crate) fn u16(reader: &mut impl Read) -> io::Result<u16> {
    array(reader).map(u16::from_be_bytes)
}

pub(crate) fn u32(reader: &mut impl Read) -> io::Result<u32> {
    array(reader).map(u32::from_be_bytes)
}

/// Reads at most `limit` bytes of `len`, and drops the rest.
pub(crate) fn cut(reader: &mut impl Read, len: u32, limit: u32) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let kept_len = len.min(limit);
    let read = reader.take(kept_len.into()).read_to_end(&mut kept)?;
    if u32::try_from(read) != Ok(kept_len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    drop_bytes(reader, u64::from(len - kept_len))?;
    Ok(kept)
}

/// Reads and drops `len` bytes.
pub(crate) fn drop_bytes(reader: &mut impl Read, len: u64) -> io::Result<()> {
    let dropped = io::copy(&mut reader.take(len), &mut io::sink())?;
    if dropped == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
