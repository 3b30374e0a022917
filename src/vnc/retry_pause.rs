// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long to wait before a socket is connected to again.

use std::time::{Duration, Instant};

/// The pause after what was of use: whoever serves the socket may just be replaced.
const SHORT: Duration = Duration::from_millis(100);
/// The first pause after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause. What lasted as long after a pause is no failure of the same kind: the next pause is a first one.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after an attempt to connect, or a connection, that failed.
///
/// It goes on whether or not anybody still wants the connection: whoever wants it next waits for its end, so that
/// viewers that come and go do not have a socket connected more often than one that stays.
#[derive(Debug)]
pub(super) struct RetryPause {
    next: Duration,
    end: Option<Instant>,
}

impl RetryPause {
    /// Before anything failed.
    pub(super) fn new() -> Self {
        Self {
            next: FIRST,
            end: None,
        }
    }

    /// When the pause that began last ends or ended.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// Whether another attempt may be made.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end.is_none_or(|end| end <= now)
    }

    /// Begins a pause: an attempt failed, or a connection ended. Returns how long it is.
    pub(super) fn begin(&mut self, now: Instant) -> Duration {
        if self.end.is_some_and(|end| now >= end + LONGEST) {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).clamp(FIRST, LONGEST);
        self.end = Some(now + pause);
        pause
    }

    /// The connection is of use: when it ends, the next attempt is made soon.
    pub(super) fn is_of_use(&mut self) {
        self.next = SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_lasts() {
        let mut pause = RetryPause::new();
        let mut now = Instant::now();
        assert!(pause.is_over(now));
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pause.begin(now), Duration::from_secs(seconds));
            let end = pause.end().unwrap();
            assert_eq!(end - now, Duration::from_secs(seconds));
            assert!(!pause.is_over(end - Duration::from_millis(1)));
            assert!(pause.is_over(end));
            now = end;
        }
        now += LONGEST - Duration::from_millis(1);
        assert_eq!(pause.begin(now), LONGEST, "it lasted too short");
        now = pause.end().unwrap() + LONGEST;
        assert_eq!(pause.begin(now), FIRST);
        pause.begin(now);
        pause.is_of_use();
        for expected in [SHORT, FIRST, FIRST * 2] {
            assert_eq!(pause.begin(now), expected);
        }
    }
}
