// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rounds: every program in turn, again and again, so that whatever else the machine does meets
//! all of them alike.

use std::time::Duration;

use crate::program::MeasuredProgram;
use crate::syscalls::Counter;
use crate::usage::Usage;
use crate::workload::{Batch, Sample, Workload};

/// How long a program gets to go to sleep before its books are read.
const SETTLE: Duration = Duration::from_millis(2);
/// Fewest pieces of a batch.
const MIN_PIECES: usize = 4;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of which medians are taken.
    pub rounds: usize,
    /// How long each program works in each round.
    pub time: Duration,
}

/// What a program took in one round, per piece of work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Processor time in microseconds.
    pub cpu: f64,
    /// Times a thread went to sleep.
    pub sleeps: f64,
    /// Seconds from its begin to its end.
    pub latency: f64,
    /// Bytes to the display.
    pub bytes: f64,
}

/// What a program took in all rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// In the order in which they were.
    pub rounds: Vec<Round>,
    /// Of all rounds, sorted.
    pub latencies: Vec<Duration>,
    /// System calls per piece; none where they cannot be counted.
    pub syscalls: Option<f64>,
}

impl Record {
    /// The median over rounds of something.
    pub(crate) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// The median over rounds of the ratio of its processor time to another's in the same round.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        median(self.ratios(other))
    }

    /// Between which a half of these ratios lies.
    pub(crate) fn quartiles(&self, other: &Self) -> (f64, f64) {
        let mut ratios = self.ratios(other);
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ratios.len().saturating_sub(1) as f64 * share;
            ratios.get(index.round() as usize).copied().unwrap_or(0.0)
        };
        (at(0.25), at(0.75))
    }

    fn ratios(&self, other: &Self) -> Vec<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        pairs.map(|(a, b)| a.cpu / b.cpu).collect()
    }

    /// Adds the rounds of another start.
    pub(crate) fn append(&mut self, other: Self) {
        self.rounds.extend(other.rounds);
        self.latencies.extend(other.latencies);
        self.latencies.sort_unstable();
        self.syscalls = self.syscalls.or(other.syscalls);
    }

    /// The latency that this share of all pieces keep.
    pub(crate) fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// The middle one, or the mean of both; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match (values.get(upper), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => (value + values[upper - 1]) / 2.0,
        (None, _) => 0.0,
    }
}

/// A program that is set up for one kind of work, and its record so far.
struct Running {
    workload: Box<dyn Workload>,
    record: Record,
}

impl Running {
    fn round(&mut self, batch: Batch) -> anyhow::Result<()> {
        std::thread::sleep(SETTLE);
        self.workload.take_excess();
        let pids = self.workload.pids();
        let before = Usage::of_all(&pids)?;
        let samples = self.workload.batch(batch)?;
        std::thread::sleep(SETTLE);
        let used = Usage::of_all(&pids)?.since(before);
        let cpu = used.cpu.saturating_sub(self.workload.take_excess());
        let pieces = samples.len() as f64;
        let sum = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>();
        self.record.rounds.push(Round {
            cpu: cpu.as_secs_f64() * 1e6 / pieces,
            sleeps: used.sleeps as f64 / pieces,
            latency: sum(|s| s.latency.as_secs_f64()) / pieces,
            bytes: sum(|s| s.bytes as f64) / pieces,
        });
        let latencies = &mut self.record.latencies;
        latencies.extend(samples.iter().map(|sample| sample.latency));
        Ok(())
    }

    fn count_syscalls(&mut self, batch: Batch) -> anyhow::Result<()> {
        let counter = Counter::start(&self.workload.pids())?;
        let samples = self.workload.batch(batch)?;
        let count = counter.stop()?;
        self.record.syscalls = Some(count as f64 / samples.len() as f64);
        Ok(())
    }
}

/// Has all programs do one kind of work. A program that cannot do it has an error instead of a
/// record; one for whom it means nothing has neither.
pub(crate) fn compare(
    who: &[MeasuredProgram],
    effort: Effort,
    count_syscalls: bool,
    start: impl Fn(&MeasuredProgram) -> anyhow::Result<Option<Box<dyn Workload>>>,
) -> Vec<Option<anyhow::Result<Record>>> {
    let batch = Batch {
        pieces: MIN_PIECES,
        time: effort.time,
    };
    let warm_up = Batch {
        time: effort.time / 2,
        ..batch
    };
    let set_up = |program: &MeasuredProgram| {
        let mut workload = match start(program) {
            Ok(Some(workload)) => workload,
            Ok(None) => return None,
            Err(e) => return Some(Err(e)),
        };
        let record = Record::default();
        let warm = workload.batch(warm_up);
        Some(warm.map(|_| Running { workload, record }))
    };
    let mut running: Vec<_> = who.iter().map(set_up).collect();
    for round in 0..effort.rounds {
        // Nobody always comes after the same one.
        for step in 0..running.len() {
            let at = (round + step) % who.len();
            attempt(&mut running[at], |running| running.round(batch));
        }
    }
    if count_syscalls {
        for running in &mut running {
            attempt(running, |running| running.count_syscalls(batch));
        }
    }
    let finish = |mut running: Running| {
        running.record.latencies.sort_unstable();
        running.record
    };
    running
        .into_iter()
        .map(|running| running.map(|running| running.map(finish)))
        .collect()
}

fn attempt(
    slot: &mut Option<anyhow::Result<Running>>,
    what: impl FnOnce(&mut Running) -> anyhow::Result<()>,
) {
    let Some(Ok(running)) = slot else { return };
    if let Err(e) = what(running) {
        *slot = Some(Err(e));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let record = |cpu: &[f64]| Record {
            rounds: cpu
                .iter()
                .map(|&cpu| Round {
                    cpu,
                    ..Round::default()
                })
                .collect(),
            ..Record::default()
        };
        // The second round was slow for both.
        let ours = record(&[1.0, 10.0, 1.0]);
        assert_eq!(ours.ratio(&record(&[2.0, 20.0, 2.0])), 0.5);
    }

    #[test]
    fn latencies_are_shares_of_all() {
        let record = Record {
            latencies: (0..=100).map(Duration::from_micros).collect(),
            ..Record::default()
        };
        assert_eq!(record.latency(0.5), Duration::from_micros(50));
        assert_eq!(record.latency(0.99), Duration::from_micros(99));
        assert_eq!(Record::default().latency(0.5), Duration::ZERO);
    }
}
