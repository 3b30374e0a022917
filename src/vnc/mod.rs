// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console: shows the screen of a VM's GPU to viewers (VNC), and gives what they type and point at to its virtual
//! keyboard and tablet.
//!
//! ```text
//!  display socket ──▶ Display ──▶ Head ──▶ Viewer ──▶ viewers' sockets
//!  events sockets ◀── ConsoleInput ◀────────┘
//! ```
//!
//! The server ([`run`]) is one thread. The GPU's messages are decoded into the pictures of the heads
//! (`display`, `head`); each viewer gets what changed since its last update (`viewer`), at its own pace.
//!
//! Guest, GPU and viewers are hostile: sizes and counts are checked before they are used, memory is bounded for each
//! viewer and each head, and whoever breaks a protocol loses the connection.

mod damage;
mod display;
mod head;
#[doc(hidden)]
pub mod input;
mod program;
mod retry_pause;
mod server;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod testing;
mod viewer;
mod wire;

pub use program::{Options, run};

#[cfg(test)]
mod test_random;
#[cfg(test)]
mod tests;
