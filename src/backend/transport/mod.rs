//! The way of the vhost-user messages: from the front-end's socket to the device on its worker.

pub(crate) mod device;
pub(crate) mod forward;
pub(crate) mod proxy;
mod sanitize;
pub(crate) mod wake_event;
pub(crate) mod worker;
