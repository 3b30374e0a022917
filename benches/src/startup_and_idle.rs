// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of starting a program, and of an idle one: time, memory, wake-ups.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use frontend::Session;
use harness::mock::MOUSE;

use crate::interrupt;
use crate::measure::median;
use crate::pipe::PipeDevice;
use crate::program::MeasuredProgram;
use crate::table::{Table, number};
use crate::usage::{Resident, Usage};
use crate::workload::Workload;
use crate::{gpu, input};

/// What it is called in the table.
pub(crate) const NAME: &str = "startup and idle";

/// How long an idle program is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// One start.
#[derive(Clone, Copy)]
struct Start {
    /// Milliseconds from `fork` to the answer to the first message.
    wall: f64,
    /// Processor time for that in milliseconds.
    cpu: f64,
}

/// What an idle program costs.
pub(crate) struct Idle {
    pub(crate) memory: Resident,
    sleeps: u64,
    cpu: Duration,
}

/// Measures all, and prints the table.
pub(crate) fn show(gpus: &[MeasuredProgram], inputs: &[MeasuredProgram], rounds: usize) {
    let mut table = Table::new(&[
        "",
        "start ms",
        "to peer",
        "start CPU ms",
        "resident KiB",
        "private KiB",
        "wake-ups/s",
        "idle CPU µs/s",
    ]);
    let mut failures = Vec::new();
    let mut add = |kind: &str, who: &[MeasuredProgram], args: &Args, measure: &Measure| {
        let starts = starts(who, rounds, args);
        let wall = |starts: &[Start]| median(starts.iter().map(|s| s.wall).collect());
        let peers = starts.iter().skip(1).filter_map(|s| s.as_ref().ok());
        let best = peers.map(|s| wall(s)).min_by(f64::total_cmp);
        for (program, starts) in who.iter().zip(&starts) {
            let name = format!("{kind}: {}", program.name);
            let row = starts.as_ref().map_err(|e| format!("{e:#}")).and_then(|s| {
                let idle = measure(program).map_err(|e| format!("{e:#}"))?;
                let seconds = WATCHED.as_secs_f64();
                Ok(vec![
                    name.clone(),
                    number(wall(s)),
                    best.map_or("-".into(), |best| number(wall(s) / best)),
                    number(median(s.iter().map(|s| s.cpu).collect())),
                    idle.memory.all.to_string(),
                    idle.memory.private.to_string(),
                    number(idle.sleeps as f64 / seconds),
                    number(idle.cpu.as_secs_f64() * 1e6 / seconds),
                ])
            });
            table.row(row.unwrap_or_else(|e| {
                failures.push(format!("- {name}: {e}"));
                vec![name]
            }));
        }
    };
    add("gpu", gpus, &|_| Ok((None, Vec::new())), &|who| {
        idle(gpu::start(who, gpu::Scenario::Idle)?)
    });
    add(
        "input",
        inputs,
        &|who| {
            let device = PipeDevice::start(MOUSE)?;
            let args = input::arguments(who, &device);
            Ok((Some(device), args))
        },
        &|who| idle(input::start(who, input::Scenario::Idle)?),
    );
    println!("### {NAME}\n\n{}", table.render());
    if !failures.is_empty() {
        println!("{}\n", failures.join("\n"));
    }
}

type Args<'a> = dyn Fn(&MeasuredProgram) -> anyhow::Result<(Option<PipeDevice>, Vec<String>)> + 'a;
type Measure<'a> = dyn Fn(&MeasuredProgram) -> anyhow::Result<Idle> + 'a;

/// Starts all in turn, as often as there are rounds.
fn starts(who: &[MeasuredProgram], rounds: usize, args: &Args) -> Vec<anyhow::Result<Vec<Start>>> {
    let mut ready: Vec<_> = who.iter().map(|who| Ok((args(who)?, Vec::new()))).collect();
    for _ in 0..rounds {
        for (program, ready) in who.iter().zip(&mut ready) {
            let Ok(((device, args), starts)) = ready else {
                continue;
            };
            let environment = device.as_ref().map(PipeDevice::environment);
            match start(program, args, environment.as_ref().map_or(&[], |e| e)) {
                Ok(one) => starts.push(one),
                Err(e) => *ready = Err(e),
            }
        }
    }
    let finish = |ready: anyhow::Result<(_, Vec<Start>)>| ready.map(|(_, starts)| starts);
    ready.into_iter().map(finish).collect()
}

fn start(who: &MeasuredProgram, args: &[String], env: &[(&str, String)]) -> anyhow::Result<Start> {
    interrupt::check()?;
    let begin = Instant::now();
    let mut started = who.start(args, env)?;
    let session = &mut started.session;
    session.negotiate(Session::usual_protocol_features())?;
    let wall = begin.elapsed().as_secs_f64() * 1e3;
    let cpu = Usage::of(started.program.pid()?)?.cpu.as_secs_f64() * 1e3;
    Ok(Start { wall, cpu })
}

pub(crate) fn idle(workload: Option<Box<dyn Workload>>) -> anyhow::Result<Idle> {
    let workload = workload.context("there is no program to watch")?;
    std::thread::sleep(WATCHED / 10);
    let before = Usage::of_all(&workload.pids())?;
    std::thread::sleep(WATCHED);
    interrupt::check()?;
    let used = Usage::of_all(&workload.pids())?.since(before);
    let pid = *workload.pids().first().context("it has no process")?;
    Ok(Idle {
        memory: Resident::of(pid)?,
        sleeps: used.sleeps,
        cpu: used.cpu,
    })
}
