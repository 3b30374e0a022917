// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-gpu: a virtio GPU (virtio 1.2, 5.7) whose screens the front-end shows
//! (QEMU, docs/interop/vhost-user-gpu.rst).
//!
//! Data flows one way: a queue brings a command, the command changes the device's state, the renderer
//! draws, and the display is sent what changed on its screen.

mod device;
mod display;
mod display_info;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kept_state;
mod protocol;
mod region;
pub mod render_node;
mod renderer;
mod resource;
mod scanout;
mod virtio_gpu;

pub use device::{CONSOLE_SOCKET, Gpu, HostVisibleMemory, HostVisibleMemoryError, Options};
pub use display_info::{ResolutionError, Resolutions};
#[cfg(feature = "virgl")]
pub use renderer::venus::{
    NativeContextError, NativeContextOptions, Options as VenusOptions, VenusError,
};
#[cfg(feature = "virgl")]
pub use renderer::virgl::{Options as VirglOptions, VirglError};
