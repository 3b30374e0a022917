// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `STATUS=`, and how often it is sent.

use std::time::{Duration, Instant};

use crate::backend::service::notify;

/// Between two texts: viewers can come and go as fast as they like, and the service manager must not be kept busy.
const INTERVAL: Duration = Duration::from_secs(1);

/// The text of `STATUS=`; sent when it changed.
#[derive(Debug, Default)]
pub(super) struct ViewerStatus {
    text: String,
    changed: bool,
    /// When the next text may be sent.
    due: Option<Instant>,
}

impl ViewerStatus {
    /// Sets the text.
    pub(super) fn set(&mut self, text: String) {
        self.changed |= self.text != text;
        self.text = text;
    }

    /// When [`Self::tell`] has something to do.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        // Without a manager nothing has to wake up for it.
        (self.changed && notify::is_heard()).then(|| self.due.unwrap_or(now))
    }

    /// Sends a text that changed, if that is due.
    pub(super) fn tell(&mut self, now: Instant) {
        if self.deadline(now).is_some_and(|due| due <= now) {
            self.due = Some(now + INTERVAL);
            self.changed = !notify::status(&self.text);
        }
    }
}
