// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Doors into the device for tests and the targets in fuzz/.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz_gpu;
#[cfg(test)]
pub(super) mod machine;
