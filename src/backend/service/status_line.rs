//! What the service manager is told of the front-end (`STATUS=`), and how often.

use std::time::{Duration, Instant};

use conventions::{FrontEndStatus, Peer};

use super::notify;

/// Between two texts. A guest can change what is served as fast as it likes, and the service manager, which
/// tells all its listeners, is not to be kept busy with that.
const INTERVAL: Duration = Duration::from_secs(1);

/// The state of a connected front-end, in one line; told while it is newer than what the manager knows.
#[derive(Debug, Default)]
pub(crate) struct StatusLine {
    connected: bool,
    next: Option<Peer>,
    detail: String,
    changed: bool,
    /// When the manager may be told the next one.
    due: Option<Instant>,
}

impl StatusLine {
    /// A front-end is connected. What the device said before is for nobody.
    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.detail.clear();
        self.changed = true;
    }

    /// Whether a front-end is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What the device says of itself.
    pub(crate) fn set_detail(&mut self, detail: String) {
        self.changed |= self.detail != detail;
        self.detail = detail;
    }

    /// Who waits until the front-end disconnects.
    pub(crate) fn set_next(&mut self, next: Option<Peer>) {
        self.changed |= self.next != next;
        self.next = next;
    }

    /// Tells the manager what changed, unless it heard something just now or does not listen; then, after
    /// how long it is to be told.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<Duration> {
        // Nobody is to be woken for what nobody hears.
        if !self.changed || !self.connected || !notify::is_heard() {
            return None;
        }
        let due = self.due.unwrap_or(now);
        if now < due {
            return Some(due - now);
        }
        self.due = Some(now + INTERVAL);
        let status = FrontEndStatus::Connected {
            next: self.next,
            detail: &self.detail,
        };
        if notify::status(status) {
            self.changed = false;
            return None;
        }
        Some(INTERVAL)
    }
}
