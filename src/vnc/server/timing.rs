// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is due by the clock: the watchdog, and the end when nobody looks.

use std::time::{Duration, Instant};

use crate::backend::service::notify;

/// How long the program stays after the last viewer left.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the connections to the GPU and the input devices stay after the last viewer left: who looks once a second
/// does not start their services, or have the GPU read back its screen, each time.
const LINK_LIMIT: Duration = Duration::from_secs(5);

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

/// How long the connections to the VM's devices stay although nobody looks.
#[derive(Debug, Default)]
pub(super) struct Linger {
    until: Option<Instant>,
}

impl Linger {
    /// The last viewer left.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until = Some(now + LINK_LIMIT);
    }

    /// Somebody looks.
    pub(super) fn cancel(&mut self) {
        self.until = None;
    }

    /// When [`Self::ends`] is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the time has come; says so once.
    pub(super) fn ends(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_for_some_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut linger = Linger::default();
        assert_eq!(linger.deadline(), None);
        linger.begin(start);
        assert!(!linger.ends(after(4)));
        linger.cancel();
        assert!(!linger.ends(after(5)));
        linger.begin(after(6));
        assert_eq!(linger.deadline(), Some(after(11)));
        assert!(linger.ends(after(11)));
        assert!(!linger.ends(after(12)), "once");
        assert_eq!(linger.deadline(), None);
    }

    /// Whoever looks every so many seconds, for an hour: neither the program nor the devices' services are started more
    /// often than systemd allows (StartLimitBurst= and TriggerLimitBurst= in 30 s), and they do not run without end.
    #[test]
    fn screenshots_at_any_interval_stay_below_the_start_limits() {
        const LIMITS: [usize; 2] = [20, 8];
        for interval in 1..30 {
            let start = Instant::now();
            let mut starts: [Vec<u64>; 2] = Default::default();
            let mut running: Option<(Idle, Linger)> = None;
            for second in 0..3600 {
                let now = start + Duration::from_secs(second);
                if let Some((idle, linger)) = &mut running {
                    linger.ends(now);
                    if idle.is_over(now) {
                        running = None;
                    }
                }
                if second % interval != 0 {
                    continue;
                }
                // It looks for less than a second.
                let (idle, linger) = running.get_or_insert_with(|| {
                    starts[0].push(second);
                    (Idle::new(true, now), Linger::default())
                });
                if linger.deadline().is_none() {
                    starts[1].push(second);
                }
                idle.set(false, now);
                idle.set(true, now);
                linger.begin(now);
            }
            for (starts, limit) in starts.iter().zip(LIMITS) {
                let most = starts.iter().map(|first| {
                    let within = |second: &&u64| (*first..first + 30).contains(*second);
                    starts.iter().filter(within).count()
                });
                let most = most.max().unwrap();
                assert!(most <= limit, "every {interval} s: {most} starts in 30 s");
            }
        }
    }

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
