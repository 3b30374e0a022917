//! What QEMU's "Backend program conventions" (docs/interop/vhost-user.rst) ask of every program,
//! whatever device it serves.

mod capabilities;
mod device;
mod escape;
#[cfg(any(test, feature = "fuzzing"))]
mod fake_context;
mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod log_queue;
mod logging;
mod notify;
mod options;
mod others;
mod program;
mod rate_limited_log;
mod relay;
mod sandbox;
mod size;
mod socket;
mod status;
mod virtqueue;
mod vring;
mod worker;

pub use capabilities::Capabilities;
pub use device::{Device, DeviceContext, FIRST_TOKEN};
pub use escape::printable;
pub use forward::{ForwardError, Side, forward};
pub use options::{CommonOptions, ConnectionOptions, GeneralOptions};
pub use program::{Program, run, usage_text};
pub use rate_limited_log::RateLimitedLog;
pub use sandbox::{Argument, SandboxPolicy, SyscallRule};
pub use size::{SizeError, parse_size};
pub use virtqueue::{
    Chain, GuestMemory, MAX_QUEUE_SIZE, MemoryGuard, QueuePass, TRANSPORT_FEATURES, VirtqueueError,
};
pub use vring::Vring;

#[cfg(test)]
pub(crate) use fake_context::FakeContext;
#[cfg(test)]
pub(crate) use virtqueue::testing;
