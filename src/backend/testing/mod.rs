//! Test doubles: the program around a device, and a guest's driver.

#[cfg(test)]
pub(crate) mod driver;
// These two are public for fuzz/ only.
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub(crate) mod fake_context;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub(crate) mod split_queue;
