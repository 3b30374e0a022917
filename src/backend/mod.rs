//! What QEMU's "Backend program conventions" (docs/interop/vhost-user.rst) ask of every program,
//! whatever device it serves.

mod device;
mod notify;
mod ring;

pub use device::{Device, FIRST_TOKEN, Host};
pub use ring::{Chain, GuestMemory, MemoryGuard, Ring, RingError};

#[cfg(test)]
pub(crate) use ring::testing;
