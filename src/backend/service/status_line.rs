//! The status of the front-end (`STATUS=`), and how often it is sent.

use std::time::{Duration, Instant};

use conventions::{FrontEndStatus, Peer};

use super::notify;

/// Between two texts. A guest can change its screen as fast as it likes; the service manager, which forwards
/// each text to its listeners, must not be kept busy by that.
const INTERVAL: Duration = Duration::from_secs(1);

/// Status of the connected front-end; sent when it changed since the last send.
#[derive(Debug, Default)]
pub(crate) struct StatusLine {
    connected: bool,
    next: Option<Peer>,
    detail: String,
    changed: bool,
    /// When the next text may be sent.
    due: Option<Instant>,
}

impl StatusLine {
    /// A front-end is connected. Drops what the device said before.
    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.detail.clear();
        self.changed = true;
    }

    /// Whether a front-end is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Sets the text of the device.
    pub(crate) fn set_detail(&mut self, detail: String) {
        self.changed |= self.detail != detail;
        self.detail = detail;
    }

    /// Sets the front-end that waits for this one to disconnect.
    pub(crate) fn set_next(&mut self, next: Option<Peer>) {
        self.changed |= self.next != next;
        self.next = next;
    }

    /// Sends a text that changed. Returns how long to wait if one was sent just now, or the manager had no room.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<Duration> {
        // Without a manager nothing has to wake up for it.
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
