// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why `monitor` ended.

use std::io;

/// Why there are no more events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MonitorError {
    #[error("The connection to the bus has ended: systemd or its bus was stopped or restarted.")]
    BusGone,
    #[error("Failed to prepare for signals: {0}.")]
    Signals(#[source] io::Error),
}
