// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The status of the front-end (`STATUS=`), and how often it is sent.

use std::borrow::Cow;
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
    /// Why no other process can go on with the front-end, once that is so.
    lost: Option<String>,
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

    /// No other process can go on with the front-end any more, because of `reason`.
    pub(crate) fn lose_state(&mut self, reason: String) {
        self.changed = true;
        self.lost = Some(reason);
    }

    /// The text of the device, and what its user has to know.
    fn text(&self) -> Cow<'_, str> {
        let Some(reason) = &self.lost else {
            return Cow::Borrowed(&self.detail);
        };
        // Behind the device's, by the beginning of which others know what it says.
        let between = if self.detail.is_empty() { "" } else { "; " };
        let detail = &self.detail;
        format!("{detail}{between}a restart ends the connection, because {reason}").into()
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
            detail: &self.text(),
        };
        if notify::status(status) {
            self.changed = false;
            return None;
        }
        Some(INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_state_is_said_behind_what_the_device_says() {
        let mut status = StatusLine::default();
        status.connect();
        status.lose_state("it is full".to_owned());
        let lost = "a restart ends the connection, because it is full";
        assert_eq!(status.text(), lost);
        status.set_detail("1280x800".to_owned());
        assert_eq!(status.text(), format!("1280x800; {lost}"));
    }
}
