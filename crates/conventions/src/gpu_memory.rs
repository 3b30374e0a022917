// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much memory a GPU takes on the host.

const MIB: u64 = 1 << 20;

/// The memory of a GPU: that of the guest's resources, and the rest of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    /// The default of `--max-hostmem`, in bytes.
    pub max_hostmem: u64,
    /// What `MemoryMax=` of the unit leaves beside `--max-hostmem`, in bytes.
    pub overhead: u64,
}

impl GpuMemory {
    /// Without `--virgl`.
    pub const TWO_D: Self = Self {
        max_hostmem: 512 * MIB,
        overhead: 512 * MIB,
    };

    /// With `--virgl`: the host's OpenGL driver allocates as well.
    pub const VIRGL: Self = Self {
        max_hostmem: 2048 * MIB,
        overhead: 6144 * MIB,
    };

    /// With `--venus`: the memory of the guest's resources is the render server's, and only accounted here.
    pub const VENUS: Self = Self {
        max_hostmem: 2048 * MIB,
        overhead: 512 * MIB,
    };

    /// The `MemoryMax=`, in MiB, that a unit needs for a `--max-hostmem` of so many bytes.
    #[must_use]
    pub fn memory_max_mib(self, max_hostmem: u64) -> u64 {
        max_hostmem.saturating_add(self.overhead).div_ceil(MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_max_is_rounded_up_to_whole_mebibytes() {
        assert_eq!(GpuMemory::TWO_D.memory_max_mib(512 * MIB), 1024);
        assert_eq!(GpuMemory::VIRGL.memory_max_mib(2048 * MIB + 1), 8193);
        assert_eq!(
            GpuMemory::TWO_D.memory_max_mib(u64::MAX),
            u64::MAX / MIB + 1
        );
    }
}
