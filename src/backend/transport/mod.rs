//! The way of vhost-user messages: from the front-end's socket by the proxy and the daemon to the device.

pub(crate) mod backend_channel;
pub(crate) mod device_handler;
pub(crate) mod display_socket;
pub(crate) mod forward;
pub(crate) mod proxy;
mod sanitize;
mod watchdog;
pub(crate) mod worker;
