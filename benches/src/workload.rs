// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that is set up for one kind of work.

use std::time::{Duration, Instant};

use crate::interrupt;

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    /// At least as many pieces.
    pub pieces: usize,
    /// At least for as long.
    pub time: Duration,
}

impl Batch {
    /// Does `piece` as often.
    ///
    /// # Errors
    /// The first of `piece`; if the measurement was interrupted.
    pub(crate) fn run(
        self,
        mut piece: impl FnMut() -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Vec<Sample>> {
        let begin = Instant::now();
        let mut samples = Vec::new();
        while samples.len() < self.pieces || begin.elapsed() < self.time {
            interrupt::check()?;
            samples.push(piece()?);
        }
        Ok(samples)
    }
}

/// What one piece of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From the guest's kick (or the device's event) until the guest has its answer and the display
    /// its pixels.
    pub latency: Duration,
    /// Bytes that the display got.
    pub bytes: u64,
}

/// A program at work.
pub(crate) trait Workload {
    /// Its processes.
    fn pids(&self) -> Vec<u32>;

    /// Has it do some work.
    ///
    /// # Errors
    /// If it does not do it, or does it wrong.
    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>>;

    /// Processor time of its processes since the last call that is the measurement's own.
    fn take_excess(&mut self) -> Duration {
        Duration::ZERO
    }
}
