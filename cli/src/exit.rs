// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exit statuses, as of systemctl(1): those of the LSB where it defines one. vhostctl(1) lists them.

/// Success.
pub(crate) const SUCCESS: u8 = 0;

/// Failure, or a usage error.
pub(crate) const FAILURE: u8 = 1;
/// `check`: a required point was not tried to the end.
pub(crate) const UNFINISHED: u8 = 2;
/// `status`: a selected backend neither runs nor listens.
pub(crate) const NOT_RUNNING: u8 = 3;
/// `status`: there is no such backend.
pub(crate) const UNKNOWN_STATE: u8 = 4;
/// Permission was denied.
pub(crate) const DENIED: u8 = 4;
/// There is no such backend, or its units are not installed.
pub(crate) const NOT_FOUND: u8 = 5;
/// The units cannot be used: masked, or with settings that systemd rejects.
pub(crate) const NOT_CONFIGURED: u8 = 6;
