// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Measures parts of the programs by themselves: regions, merging, backings, rows of pixels, rectangles of changed pixels.
//!
//! It prints one round: a line for each part, with its name and the nanoseconds of processor time of one piece of work.
//! `bench --parts` runs it in turn with that of another version (`make bench-compare`).

use std::io::{self, Write as _};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vhost_user_backends::{gpu, vnc};

/// How long a part works.
const TIME: Duration = Duration::from_millis(10);

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, mut work) in gpu::fuzzing::parts()
        .into_iter()
        .chain(vnc::testing::parts())
    {
        let mut pieces = 1_u32;
        let nanoseconds = loop {
            let begin = cpu_time();
            for _ in 0..pieces {
                work();
            }
            let used = cpu_time().saturating_sub(begin);
            // The rounds before it warm the caches.
            if used >= TIME {
                break used.as_secs_f64() * 1e9 / f64::from(pieces);
            }
            pieces = pieces.saturating_mul(2);
        };
        writeln!(out, "{name}\t{nanoseconds:.1}")?;
    }
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
