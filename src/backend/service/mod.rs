//! The program as a service: its main thread, and what the service manager is told.

pub(crate) mod main_thread;
pub(crate) mod notify;
pub(crate) mod status_line;
