//! Messages that a guest can cause, a few at a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long a message keeps the next ones back.
const PERIOD: Duration = Duration::from_secs(10);

/// Logs one message in [`PERIOD`] and says with the next how many there were in between, so that a
/// guest cannot fill the journal.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Logs `message` as a warning, unless there was one just now.
    pub fn warn(&mut self, message: impl Display) {
        let Some(held_back) = self.admit(Instant::now()) else {
            return;
        };
        match held_back {
            0 => log::warn!("{message}"),
            more => log::warn!("{message} ({more} more such messages were held back)"),
        }
    }

    /// Whether a message may go out now, and how many were held back before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < PERIOD)
        {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_in_a_period_and_the_count_of_the_others() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(throttle.admit(start + PERIOD / 2), None);
        }
        assert_eq!(throttle.admit(start + PERIOD), Some(1000));
        assert_eq!(throttle.admit(start + PERIOD * 2), Some(0));
    }
}
