// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers for tests.

/// A fixed sequence of numbers that looks random (Knuth's constants).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit.max(1)
    }
}
