// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which of the many points of a program's life are tried, and in which order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::tracer::{Moment, Point};

/// How long a test tries points, unless `CONTINUITY_SECONDS` says otherwise. The first are the most telling.
const BUDGET: Duration = Duration::from_secs(12);
/// The most instructions between a system call and a death.
const MOST_STEPS: u64 = 20_000;

/// Calls that nobody else notices: memory and locks. They are tried last.
const QUIET: [i64; 12] = [
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
];

/// Random numbers that are the same each time (splitmix64), unless `CONTINUITY_SEED` is set.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self(number("CONTINUITY_SEED").unwrap_or(1))
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for n in (1..all.len()).rev() {
            let other = self.below(n as u64 + 1) as usize;
            all.swap(n, other);
        }
    }

    /// Few instructions or many: each order of magnitude is as likely.
    fn steps(&mut self) -> u32 {
        let most = self.below(64 - u64::from(MOST_STEPS.leading_zeros())) + 1;
        self.below(1 << most).min(MOST_STEPS) as u32
    }
}

/// What an environment variable says.
pub(super) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// When the tries of a test end.
pub(super) fn deadline() -> Instant {
    let given = number("CONTINUITY_SECONDS").map(Duration::from_secs);
    Instant::now() + given.unwrap_or(BUDGET)
}

/// All moments of these calls: entry, exit, and one after some instructions. Each kind of call (thread and number)
/// gets its turn, those that others notice first.
pub(super) fn order(points: &[Point], random: &mut Random) -> Vec<Point> {
    let mut kinds = BTreeMap::<(bool, &str, i64), Vec<Point>>::new();
    for point in points {
        let quiet = QUIET.contains(&point.call);
        let kind = kinds.entry((quiet, &point.thread, point.call));
        let moments = [Moment::Entry, Moment::Exit, Moment::After(random.steps())];
        kind.or_default()
            .extend(moments.map(|moment| point.at(moment)));
    }
    let mut order = Vec::new();
    for is_quiet in [false, true] {
        let kinds = kinds
            .iter_mut()
            .filter(|((quiet, ..), _)| *quiet == is_quiet);
        let mut kinds: Vec<_> = kinds.map(|(_, points)| points).collect();
        for points in &mut kinds {
            random.shuffle(points);
        }
        while kinds.iter().any(|points| !points.is_empty()) {
            // Of a kind with many calls several at a time.
            for points in &mut kinds {
                let some = points.len().min(1 + points.len() / 32);
                order.extend(points.drain(..some));
            }
        }
    }
    order
}
