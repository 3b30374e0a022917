// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that a program listens on, or that were passed to it: by options, and by socket activation
//! (sd_listen_fds(3)).
//!
//! Descriptors that were passed are found before the program opens any file, which could get the number that an
//! option names. Sockets at a path are made later, by [`PlannedListener::listen`].

mod activation;
mod error;
mod listener;
mod passed;
mod path;
mod peer;

pub(crate) use activation::PassedSockets;
pub use activation::activated_socket;
pub use error::{SocketError, SocketOption};
pub(crate) use listener::{Further, plan_further};
pub use listener::{
    ListenerOptions, ListeningSocket, PlannedListener, plan_listeners, refuse_unparsed,
    refuse_waiting,
};
pub(crate) use passed::{Passed, is_passing};
pub(crate) use path::SocketFile;
pub(crate) use peer::peer;
