//! What QEMU's "Backend program conventions" (docs/interop/vhost-user.rst) ask of every program,
//! whatever device it serves.

mod lock;
mod logging;
mod program;
mod sandbox;
mod service;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
mod transport;
mod virtqueue;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use testing::fuzzing;

pub use conventions::{Capabilities, DeviceType, SizeError, parse_size, printable};
pub use logging::RateLimitedLog;
pub use program::endpoint::{SocketError, activated_socket};
pub use program::options::{CommonOptions, ConnectionOptions, GeneralOptions};
pub use program::{Program, run, usage_text};
pub use sandbox::{Argument, SandboxPolicy, SyscallRule};
pub use transport::device::{Device, DeviceBuilder, DeviceContext, FIRST_TOKEN};
pub use transport::forward::{ForwardError, forward};
pub use transport::proxy::Side;
pub use transport::wake_event::WakeEvent;
pub use virtqueue::{
    Chain, GuestMemory, MAX_QUEUE_SIZE, MemoryGuard, QueuePass, TRANSPORT_FEATURES, VirtqueueError,
    Vring,
};
pub use vmm_sys_util::epoll::EventSet;

#[cfg(test)]
pub(crate) use testing::fake_context::FakeContext;
