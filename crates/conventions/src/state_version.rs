// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version of the state that a program keeps for the process after it, as the file of the program tells it: so it is
//! known before the program runs.

/// The version with a mark before it, for a `static` of a program.
#[repr(C)]
#[derive(Debug)]
pub struct StateVersion {
    mark: [u8; Self::MARK.len()],
    /// Little-endian.
    version: [u8; 4],
}

impl StateVersion {
    /// What stands before the version, once in the file of a program.
    pub const MARK: [u8; 29] = *b"vhost-user kept state version";

    /// The version `version`.
    #[must_use]
    pub const fn new(version: u32) -> Self {
        Self {
            mark: Self::MARK,
            version: version.to_le_bytes(),
        }
    }

    /// The version.
    #[must_use]
    pub const fn get(&self) -> u32 {
        u32::from_le_bytes(self.version)
    }

    /// Reads what stands behind the mark.
    #[must_use]
    pub fn parse(behind_mark: &[u8]) -> Option<u32> {
        let version = behind_mark.first_chunk()?;
        Some(u32::from_le_bytes(*version))
    }
}
