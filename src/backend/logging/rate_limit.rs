// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rate limit for log messages that a guest or a viewer can cause.

use std::time::{Duration, Instant};

/// Logs at most 10 messages in 10 seconds and counts the others, so that a guest or a viewer cannot fill the journal. Use one for
/// each kind of message.
#[derive(Debug, Default)]
pub struct RateLimitedLog {
    since: Option<Instant>,
    passed: u32,
    dropped: u64,
}

impl RateLimitedLog {
    const PERIOD: Duration = Duration::from_secs(10);
    const BURST: u32 = 10;

    /// Logs `message` as a warning, unless the limit is reached.
    pub fn warn(&mut self, message: impl std::fmt::Display) {
        self.log(log::Level::Warn, message);
    }

    /// Logs `message` as an error, unless the limit is reached.
    pub fn error(&mut self, message: impl std::fmt::Display) {
        self.log(log::Level::Error, message);
    }

    /// Logs `message` for information, unless the limit is reached.
    pub fn info(&mut self, message: impl std::fmt::Display) {
        self.log(log::Level::Info, message);
    }

    fn log(&mut self, level: log::Level, message: impl std::fmt::Display) {
        if let Some(dropped) = self.admit(Instant::now()) {
            if dropped != 0 {
                log::log!(level, "{dropped} similar messages dropped");
            }
            log::log!(level, "{message}");
        }
    }

    /// Whether to log a message at `now`; if so, how many were dropped before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let fresh = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Self::PERIOD);
        if fresh {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed >= Self::BURST {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_dropped_and_counted() {
        let mut limit = RateLimitedLog::default();
        let start = Instant::now();
        let passed = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.admit(start + RateLimitedLog::PERIOD), Some(990));
        assert_eq!(limit.admit(start + RateLimitedLog::PERIOD), Some(0));
    }
}
