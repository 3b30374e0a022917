// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much is read from a console: what it sends costs the worker time, which is the guest's.

use std::time::{Duration, Instant};

/// Most messages in [`PERIOD`]. Somebody who drags a window's corner needs fewer.
const MAX_MESSAGES: u32 = 32;
const PERIOD: Duration = Duration::from_millis(100);

/// Counts the messages of a console.
#[derive(Debug, Default)]
pub(super) struct ReadLimit {
    count: u32,
    /// When counting begins anew.
    ends: Option<Instant>,
}

impl ReadLimit {
    /// A message was read.
    pub(super) fn count(&mut self, now: Instant) {
        if self.ends.is_none_or(|ends| ends <= now) {
            *self = Self {
                count: 0,
                ends: Some(now + PERIOD),
            };
        }
        self.count = self.count.saturating_add(1);
    }

    /// Whether no more is to be read before [`ReadLimit::deadline`].
    pub(super) fn is_reached(&self) -> bool {
        self.count >= MAX_MESSAGES
    }

    /// When reading goes on, if it does not now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.filter(|_| self.is_reached())
    }

    /// Reading may go on.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|ends| ends <= now) {
            *self = Self::default();
        }
    }
}
