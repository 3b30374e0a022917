//! vhost-user-input: an input device of the host, given to a VM (virtio 1.2, 5.8).

mod buffer;
mod config;
mod device;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod queue;
mod report;
mod sandbox_policy;
mod slot;
mod source;
mod state;
mod status;
mod wire;

pub use device::{Input, InputBuilder, Options};
pub use source::OpenError as Error;
