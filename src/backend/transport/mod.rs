// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The way of vhost-user messages: from the front-end's socket by the proxy and the daemon to the device.

pub(crate) mod backend_channel;
pub(crate) mod device_handler;
pub(crate) mod display_socket;
mod file_id;
pub(crate) mod forward;
mod forwarder;
mod journal;
mod message_header;
pub(crate) mod proxy;
pub(crate) mod resumable;
mod running_vrings;
mod sanitize;
pub(crate) mod succession;
mod watchdog;
pub(crate) mod worker;
