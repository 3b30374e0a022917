// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times, spans and sizes as text, in the format of systemd's tools.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A time in the local time zone.
pub(crate) fn local(time: Timestamp) -> Zoned {
    time.to_zoned(TimeZone::system())
}

/// A time, and how long ago it was.
pub(crate) fn moment(time: Timestamp) -> String {
    let clock = local(time).strftime("%a %Y-%m-%d %H:%M:%S %Z");
    format!("{clock}; {}", ago(time))
}

/// How long ago a time was.
pub(crate) fn ago(time: Timestamp) -> String {
    match Duration::try_from(time.duration_until(Timestamp::now())) {
        Ok(span) => format!("{} ago", coarse(span)),
        // A clock that was set back.
        Err(_) => "in the future".to_owned(),
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A span in its one or two largest units.
fn coarse(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours) = (seconds / DAY, seconds % DAY / HOUR);
    let minutes = seconds % HOUR / MINUTE;
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR if minutes < 5 => format!("{minutes}min {}s", seconds % MINUTE),
        MINUTE..HOUR => format!("{minutes}min"),
        HOUR..DAY => format!("{hours}h {minutes}min"),
        _ if days == 1 => format!("1 day {hours}h"),
        _ => format!("{days} days"),
    }
}

/// A span of processor time, to the millisecond.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let below = span.subsec_millis();
    match seconds {
        0 => format!("{below}ms"),
        1..MINUTE => format!("{seconds}.{below:03}s"),
        MINUTE..HOUR => format!("{}min {}.{below:03}s", seconds / MINUTE, seconds % MINUTE),
        _ => format!(
            "{}h {}min {}s",
            seconds / HOUR,
            seconds % HOUR / MINUTE,
            seconds % MINUTE
        ),
    }
}

/// A size in bytes, in powers of 1024.
pub(crate) fn bytes(size: u64) -> String {
    let mut unit = 1_u64;
    let mut name = 'B';
    for next in ['K', 'M', 'G', 'T', 'P', 'E'] {
        if size / 1024 < unit {
            break;
        }
        unit *= 1024;
        name = next;
    }
    match (size / unit, size % unit / (unit / 10).max(1)) {
        (whole, _) if unit == 1 => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{}{name}", tenth.min(9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (size, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (2047, "1.9K"),
            (1 << 20, "1.0M"),
            ((1 << 30) - 1, "1023.9M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn spans_are_as_exact_as_they_are_short() {
        let milliseconds = Duration::from_millis;
        assert_eq!(span(milliseconds(7)), "7ms");
        assert_eq!(span(milliseconds(1_005)), "1.005s");
        assert_eq!(span(milliseconds(61_500)), "1min 1.500s");
        assert_eq!(span(milliseconds(3_600_000)), "1h 0min 0s");
        assert_eq!(coarse(milliseconds(12)), "12ms");
        assert_eq!(coarse(milliseconds(59_999)), "59s");
        assert_eq!(coarse(milliseconds(61_000)), "1min 1s");
        assert_eq!(coarse(milliseconds(3_599_000)), "59min");
        assert_eq!(coarse(milliseconds(3_660_000)), "1h 1min");
        assert_eq!(coarse(Duration::from_secs(DAY + 2 * HOUR)), "1 day 2h");
        assert_eq!(coarse(Duration::from_secs(40 * DAY)), "40 days");
    }

    #[test]
    fn the_future_is_told_as_such() {
        let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        assert_eq!(ago(later), "in the future");
        let earlier = Timestamp::now() - jiff::SignedDuration::from_hours(2);
        assert_eq!(ago(earlier), "2h 0min ago");
    }
}
