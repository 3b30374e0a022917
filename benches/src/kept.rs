// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of keeping the state for a successor while nothing goes wrong, and the time that a successor takes.

use std::time::Instant;

use anyhow::{Context as _, bail};
use frontend::Session;

use crate::interrupt;
use crate::measure::{Effort, Record, compare, median};
use crate::program::{MeasuredProgram, Process, Started};
use crate::table::{Table, number};
use crate::workload::Workload;
use crate::{Bench, INPUT_WORK, cpu, gpu, gpu_work, input, startup_and_idle};

/// What it is called in the tables.
pub(crate) const NAME: &str = "state kept";

/// How a program is set up for some work.
type Start<'a> = dyn Fn(&MeasuredProgram) -> anyhow::Result<Option<Box<dyn Workload>>> + 'a;

/// Programs of one kind. The first of those that are measured are ours, the last `more` of them other versions of ours.
pub(crate) struct Programs<'a> {
    pub(crate) measured: &'a [MeasuredProgram],
    pub(crate) more: usize,
}

impl Programs<'_> {
    /// Ours without kept state, the same again, and with kept state; and then the other versions.
    fn to_compare(&self) -> Option<Vec<MeasuredProgram>> {
        let ours = self.measured.first()?;
        let more = self.measured.len().saturating_sub(self.more).max(1);
        let others = self.measured.get(more..).unwrap_or_default();
        Some([&[ours.clone(), ours.clone(), ours.kept()], others].concat())
    }

    /// Ours without and with kept state, and all others.
    fn of_memory(&self) -> Vec<MeasuredProgram> {
        let [ours, others @ ..] = self.measured else {
            return Vec::new();
        };
        [&[ours.clone(), ours.kept()], others].concat()
    }
}

/// Measures all, and prints the tables. `wanted` tells of which work.
pub(crate) fn show(
    bench: &Bench,
    gpus: &Programs<'_>,
    inputs: &Programs<'_>,
    wanted: &dyn Fn(&str) -> bool,
) {
    let (Some(gpu), Some(input)) = (gpus.to_compare(), inputs.to_compare()) else {
        return;
    };
    let mut failures = Vec::new();
    // As ratios: of the same program to itself, which tells how far to trust the others; and of kept state to other versions.
    let heading = ["", "CPU µs", "kept", "ratio", "quartiles", "again"];
    let names = gpu.iter().skip(3).map(|other| format!("to {}", other.name));
    let names: Vec<_> = names.collect();
    let heading = heading.into_iter().chain(names.iter().map(String::as_str));
    let heading = heading.chain(["p50 µs", "kept", "syscalls", "kept"]);
    let mut table = Table::new(&heading.collect::<Vec<_>>());
    let mut add = |name: &str, who: &[MeasuredProgram], start: &Start<'_>| {
        if !wanted(&format!("{NAME}: {name}")) || interrupt::is_noticed() {
            return;
        }
        match work(bench, who, start) {
            Ok(cells) => table.row([vec![name.to_owned()], cells].concat()),
            Err(e) => failures.push(format!("- {name}: {e:#}")),
        }
    };
    for (name, scenario) in gpu_work() {
        add(name, &gpu, &|who| gpu::start(who, scenario));
    }
    for (name, scenario) in INPUT_WORK {
        add(name, &input, &|who| input::start(who, scenario));
    }
    if !table.is_empty() {
        println!("### {NAME}\n\n{}", table.render());
    }

    let mut table = Table::new(&["", "resident KiB", "private KiB"]);
    let mut add = |kind: &str, who: &Programs<'_>, start: &Start<'_>| {
        let kind_wanted = wanted(&format!("{NAME}: memory: {kind}"));
        for program in who.of_memory() {
            if !kind_wanted || interrupt::is_noticed() {
                return;
            }
            let name = format!("{kind}: {}", program.name);
            match start(&program).and_then(startup_and_idle::idle) {
                Ok(idle) => table.row(vec![
                    name,
                    idle.memory.all.to_string(),
                    idle.memory.private.to_string(),
                ]),
                Err(e) => failures.push(format!("- {name}: {e:#}")),
            }
        }
    };
    // With a screen of 1920x1080: what is kept of it is memory of the program too.
    let screen = gpu_work().into_iter().next().map(|(_, scenario)| scenario);
    if let Some(screen) = screen {
        add("gpu with a screen", gpus, &|who| {
            let mut workload = gpu::start(who, screen)?;
            if let Some(workload) = &mut workload {
                workload.batch(crate::workload::Batch {
                    pieces: 10,
                    time: bench.effort.time,
                })?;
            }
            Ok(workload)
        });
    }
    add("input", inputs, &|who| {
        input::start(who, input::Scenario::Idle)
    });
    if !table.is_empty() {
        println!("{}", table.render());
    }

    if wanted(&format!("{NAME}: restart")) {
        match restarts(&gpu[2], bench.effort.rounds) {
            Ok(times) => println!(
                "From the kill of a GPU to the answer of its successor: {} ms (median of {}, at most {} ms)\n",
                number(median(times.clone())),
                times.len(),
                number(times.iter().copied().fold(0.0, f64::max))
            ),
            Err(e) => failures.push(format!("- restart: {e:#}")),
        }
    }
    if !failures.is_empty() {
        println!("{}\n", failures.join("\n"));
    }
}

/// The cells of the table behind the name of the work.
fn work(bench: &Bench, who: &[MeasuredProgram], start: &Start<'_>) -> anyhow::Result<Vec<String>> {
    let mut records = starts(bench, who, start)?.into_iter();
    let mut next = || records.next().context("it does not do this");
    let (plain, again, kept) = (next()?, next()?, next()?);
    let others: Vec<Record> = records.collect();
    let micros = |record: &Record| number(record.latency(0.5).as_secs_f64() * 1e6);
    let calls = |record: &Record| record.syscalls.map_or("-".into(), number);
    let ratio = |record: &Record, to: &Record| format!("{:.3}", record.ratio(to));
    let (low, high) = kept.quartiles(&plain);
    let first = [
        number(cpu(&plain)),
        number(cpu(&kept)),
        ratio(&kept, &plain),
        format!("{low:.2}-{high:.2}"),
        ratio(&again, &plain),
    ];
    let last = [micros(&plain), micros(&kept), calls(&plain), calls(&kept)];
    let others = others.iter().map(|other| ratio(&kept, other));
    Ok(first.into_iter().chain(others).chain(last).collect())
}

/// The records of all, over several starts, each with a part of the rounds. Which memory of the host a process gets depends on
/// what was started before it, and lasts as long as the process: so each start is in another order.
fn starts(
    bench: &Bench,
    who: &[MeasuredProgram],
    start: &Start<'_>,
) -> anyhow::Result<Vec<Record>> {
    let effort = Effort {
        rounds: bench.effort.rounds.div_ceil(bench.starts),
        ..bench.effort
    };
    let mut all = vec![Record::default(); who.len()];
    for n in 0..bench.starts {
        interrupt::check()?;
        let mut order = who.to_vec();
        let first = n % who.len();
        order.rotate_left(first);
        // System calls are the same each time.
        let count_syscalls = bench.count_syscalls && n == 0;
        let mut records = compare(&order, effort, count_syscalls, start);
        records.rotate_right(first);
        for (all, record) in all.iter_mut().zip(records) {
            all.append(record.context("it does not do this")??);
        }
    }
    Ok(all)
}

/// Milliseconds from the end of a program until its successor answers its front-end.
fn restarts(who: &MeasuredProgram, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let Started {
        program,
        mut session,
        ..
    } = who.start(&[], &[])?;
    let Process::Service(mut service) = program else {
        bail!("{} is no service", who.name);
    };
    session.negotiate(Session::usual_protocol_features())?;
    let times = (0..rounds).map(|_| {
        interrupt::check()?;
        service.kill()?;
        let begin = Instant::now();
        service.start()?;
        session.config(0, 16)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    });
    times.collect()
}
