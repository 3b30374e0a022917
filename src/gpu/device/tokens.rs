// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tokens of the device's events, beside those of its virtqueues.

use crate::backend::FIRST_TOKEN;

/// Token of the VMM's display socket.
pub(super) const DISPLAY: u16 = FIRST_TOKEN;
/// Token of the timer.
pub(super) const TIMER: u16 = FIRST_TOKEN + 1;
/// Token of the event that the device sends itself.
pub(super) const WAKE: u16 = FIRST_TOKEN + 2;
/// Token of the renderer's fence event.
pub(super) const FENCE: u16 = FIRST_TOKEN + 3;
/// Token of the socket on which consoles connect.
pub(super) const CONSOLE_LISTENER: u16 = FIRST_TOKEN + 4;
/// Token of the news about configuration changes.
pub(super) const CONFIG_CHANGE: u16 = FIRST_TOKEN + 5;
/// Token of what became of a request to map memory of the host.
pub(super) const HOST_MEMORY: u16 = FIRST_TOKEN + 6;
/// First token of consoles' sockets.
pub(super) const CONSOLES: u16 = FIRST_TOKEN + 7;
