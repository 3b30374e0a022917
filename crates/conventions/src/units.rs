// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names and limits that the units, the programs and vhostctl share.

/// The environment variable by which `vhost-user-input@.service` passes `--evdev-path`.
pub const EVDEV_PATH: &str = "EVDEV_PATH";

/// The environment variable by which the units pass further options of a program, separated by spaces.
pub const OPTIONS: &str = "OPTIONS";

/// The folder of all sockets that the units make (`ListenStream=`).
pub const SOCKET_FOLDER: &str = "/run/vhost-user";

/// The most bytes that the path of a Unix socket has: `sun_path` holds 108, one of them the closing NUL (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// The number of the first descriptor that socket activation passes (`SD_LISTEN_FDS_START` of
/// sd_listen_fds(3)).
pub const FIRST_PASSED_FD: i32 = 3;

/// How many descriptors at least a program keeps with the service manager (`FDSTORE=1`) once its front-end's device
/// outlives it: its state and both ends of the socket that holds its descriptors. With fewer, of which one may be the
/// connection of a second front-end that waits, a restart ends the device.
pub const KEPT_STATE_DESCRIPTORS: u32 = 3;
