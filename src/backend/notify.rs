//! What the service manager is told, by sd_notify(3). Without `NOTIFY_SOCKET` all of it is nothing.

use std::fmt::Display;
use std::time::Duration;

use sd_notify::NotifyState;

/// `READY=1`, with the first `STATUS=`.
pub(super) fn ready(text: impl Display) {
    tell(&[NotifyState::Ready, NotifyState::Status(&text.to_string())]);
}

/// Tells the service manager in words what is served (`STATUS=`).
pub(super) fn status(text: impl Display) {
    tell(&[NotifyState::Status(&text.to_string())]);
}

/// `STOPPING=1`, with the last `STATUS=`.
pub(super) fn stopping(text: impl Display) {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&text.to_string()),
    ]);
}

/// `WATCHDOG=1`.
pub(super) fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often `WATCHDOG=1` is due: half of what the unit allows (`WatchdogSec=`), or never.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::debug!("cannot notify the service manager: {e}");
    }
}
