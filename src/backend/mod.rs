//! What QEMU's "Backend program conventions" (docs/interop/vhost-user.rst) ask of every program,
//! whatever device it serves.

mod capabilities;
mod device;
mod escape;
mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod log_limit;
mod log_queue;
mod logging;
mod notify;
mod options;
mod others;
mod program;
mod relay;
mod ring;
mod sandbox;
mod size;
mod socket;
mod status;
#[cfg(any(test, feature = "fuzzing"))]
mod surroundings;
mod vring;
mod worker;

pub use capabilities::Capabilities;
pub use device::{Device, FIRST_TOKEN, Host};
pub use escape::printable;
pub use forward::{ForwardError, Side, forward};
pub use log_limit::LogLimit;
pub use options::{CommonOptions, ConnectionOptions, GeneralOptions};
pub use program::{Program, run, usage_text};
pub use ring::{
    Chain, GuestMemory, MAX_QUEUE_SIZE, MemoryGuard, Ring, RingError, TRANSPORT_FEATURES,
};
pub use sandbox::{Argument, Call, Needs};
pub use size::{SizeError, parse_size};
pub use vring::Vring;

#[cfg(test)]
pub(crate) use ring::testing;
#[cfg(test)]
pub(crate) use surroundings::Surroundings;
