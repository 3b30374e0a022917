//! vhost-user-gpu and vhost-user-input: a GPU and input devices for virtual machines, as ordinary
//! host processes that any VMM with a vhost-user front-end can use.

pub mod accept;
pub mod backend;
pub mod gpu;
pub mod input;
