//! The units, in a private systemd.

#[path = "../common/mod.rs"]
mod common;

mod backends;
mod confined;
mod faults;
mod host;
mod starts;
#[cfg(feature = "virgl")]
mod virgl;
