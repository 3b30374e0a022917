//! vhost-vnc: the console of a VM, a VNC server for its screen, keyboard and pointer.

pub mod input;
