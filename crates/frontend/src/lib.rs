// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vhost-user front-end that plays the VMM *and* the guest's driver against any vhost-user-gpu
//! or vhost-user-input program, over its unix socket.
//!
//! From the outside in: [`Program`] starts a backend program in any of the ways its conventions
//! know; [`Session`] speaks vhost-user to it, well-formed or not; [`Memory`] is the guest's memory;
//! [`Queue`] is the driver's side of a split virtqueue, [`PackedQueue`] of a packed one; [`gpu`] and [`input`] are the two drivers,
//! and [`gpu::Display`] plays QEMU's part of the vhost-user-gpu protocol. [`vmm`] has the orders in which
//! VMMs set a device up. [`manager`] is a service manager that keeps descriptors for a program that dies.
//!
//! Nothing here waits without a limit: every wait ends after [`DEFAULT_LIMIT`] unless told
//! otherwise, and its error says what was waited for. The usual time from a request to its answer
//! is microseconds, so the limit is only ever reached by a backend that does not answer.

mod channel;
mod error;
pub mod events;
pub mod features;
pub mod gpu;
pub mod input;
pub mod manager;
mod memory;
mod notify;
mod packed;
mod program;
mod queue;
mod session;
pub mod shared_memory;
pub mod vmm;
mod wait;

pub use channel::{Channel, Message};
pub use error::{Error, Result};
pub use memory::Memory;
pub use notify::{Notification, NotifySocket};
pub use packed::PackedQueue;
pub use program::{Command, MANAGER_VARIABLES, Program, SocketForm};
pub use queue::{Buffer, Descriptor, Queue, Used, descriptor_flags};
pub use session::{Offer, Region, Session};
pub use wait::{DEFAULT_LIMIT, Deadline};

pub use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
