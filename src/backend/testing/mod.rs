//! The program around a device and a guest's driver before it, in the hands of tests and of the
//! targets in fuzz/.

#[cfg(test)]
pub(crate) mod driver;
// Public for fuzz/ only.
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub(crate) mod fake_context;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
