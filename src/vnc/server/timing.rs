//! What is due by the clock: the watchdog, and the end when nobody looks.

use std::time::{Duration, Instant};

use crate::backend::service::notify;

/// How long the program stays after the last viewer left.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// When to send `WATCHDOG=1` (sd_notify(3)).
pub(super) struct WatchdogTimer {
    interval: Duration,
    due: Instant,
}

impl WatchdogTimer {
    /// The watchdog of the unit (`WatchdogSec=`), if it has one.
    pub(super) fn of_unit(now: Instant) -> Option<Self> {
        let interval = notify::watchdog_interval()?;
        Some(Self {
            interval,
            due: now + interval,
        })
    }

    /// When [`Self::feed`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.due
    }

    /// Sends it if it is due.
    pub(super) fn feed(&mut self, now: Instant) {
        if self.due <= now {
            let sent = notify::watchdog();
            let pause = if sent {
                self.interval
            } else {
                notify::watchdog_retry(self.interval)
            };
            self.due = now + pause;
        }
    }
}

/// Whether nobody was there for a while.
#[derive(Debug)]
pub(super) struct Idle {
    /// Whether that ends the program.
    ends: bool,
    since: Option<Instant>,
}

impl Idle {
    /// Nobody is there at first.
    pub(super) fn new(ends: bool, now: Instant) -> Self {
        Self {
            ends,
            since: Some(now),
        }
    }

    /// Says whether anybody is there.
    pub(super) fn set(&mut self, idle: bool, now: Instant) {
        self.since = idle.then(|| self.since.unwrap_or(now));
    }

    /// When the program ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.ends)?;
        Some(since + IDLE_LIMIT)
    }

    /// Whether the program ends.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_ends_some_seconds_after_the_last_viewer() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(true, start);
        assert!(!idle.is_over(after(9)));
        idle.set(false, after(9));
        assert_eq!(idle.deadline(), None);
        assert!(!idle.is_over(after(100)));
        idle.set(true, after(100));
        idle.set(true, after(105));
        assert!(!idle.is_over(after(109)));
        assert!(idle.is_over(after(110)));
        let idle = Idle::new(false, start);
        assert!(!idle.is_over(after(1000)));
    }
}
