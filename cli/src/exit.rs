//! Exit statuses, as systemctl(1) has them: those of the LSB where it has one. vhostctl(1) lists them.

/// It failed, or the command line is wrong.
pub(crate) const FAILURE: u8 = 1;
/// `status`: a backend that was named neither runs nor listens.
pub(crate) const NOT_RUNNING: u8 = 3;
/// `status`: there is no such backend.
pub(crate) const UNKNOWN_STATE: u8 = 4;
/// Permission was denied.
pub(crate) const DENIED: u8 = 4;
/// There is no such backend, or its units are not installed.
pub(crate) const NOT_FOUND: u8 = 5;
/// The units cannot be used as they are: masked, or with settings that systemd does not take.
pub(crate) const NOT_CONFIGURED: u8 = 6;
