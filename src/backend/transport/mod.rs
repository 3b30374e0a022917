//! The way of vhost-user messages: from the front-end's socket by the proxy and the daemon to the device.

pub(crate) mod device;
pub(crate) mod display_socket;
pub(crate) mod forward;
pub(crate) mod proxy;
mod sanitize;
pub(crate) mod wake_event;
pub(crate) mod worker;
