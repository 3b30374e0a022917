// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Test doubles: the program around a device, and a guest's driver.

pub(crate) mod committing;
#[cfg(test)]
pub(crate) mod driver;
// These are public for fuzz/ only.
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub(crate) mod fake_context;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(crate) mod kept_state;
#[cfg(feature = "fuzzing")]
pub(crate) mod processes;
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub(crate) mod split_queue;
