//! What a program costs before and between its work: its start, its memory, its wake-ups.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use frontend::Session;
use harness::mock::MOUSE;

use crate::contestant::Contestant;
use crate::measure::median;
use crate::pipe::PipeDevice;
use crate::rig::Rig;
use crate::table::{Table, number};
use crate::usage::{Resident, Usage};
use crate::{gpu, input};

/// What it is called in the table.
pub const NAME: &str = "start and rest";

/// How long a program is watched at rest.
const WATCHED: Duration = Duration::from_secs(1);

/// One start.
#[derive(Clone, Copy)]
struct Start {
    /// Milliseconds from `fork` to the answer to the first message.
    wall: f64,
    /// Processor time for that in milliseconds.
    cpu: f64,
}

/// What it is like at rest.
struct Rest {
    memory: Resident,
    sleeps: u64,
    cpu: Duration,
}

/// Measures all, and prints the table.
pub fn show(gpus: &[Contestant], inputs: &[Contestant], rounds: usize) {
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
    let mut add = |kind: &str, who: &[Contestant], args: &Args, at_rest: &AtRest| {
        let starts = starts(who, rounds, args);
        let wall = |starts: &[Start]| median(starts.iter().map(|s| s.wall).collect());
        let peers = starts.iter().skip(1).filter_map(|s| s.as_ref().ok());
        let best = peers.map(|s| wall(s)).min_by(f64::total_cmp);
        for (contestant, starts) in who.iter().zip(&starts) {
            let name = format!("{kind}: {}", contestant.name);
            let row = starts.as_ref().map_err(|e| format!("{e:#}")).and_then(|s| {
                let rest = at_rest(contestant).map_err(|e| format!("{e:#}"))?;
                let seconds = WATCHED.as_secs_f64();
                Ok(vec![
                    name.clone(),
                    number(wall(s)),
                    best.map_or("-".into(), |best| number(wall(s) / best)),
                    number(median(s.iter().map(|s| s.cpu).collect())),
                    rest.memory.all.to_string(),
                    rest.memory.private.to_string(),
                    number(rest.sleeps as f64 / seconds),
                    number(rest.cpu.as_secs_f64() * 1e6 / seconds),
                ])
            });
            table.row(row.unwrap_or_else(|e| {
                failures.push(format!("- {name}: {e}"));
                vec![name]
            }));
        }
    };
    add("gpu", gpus, &|_| Ok((None, Vec::new())), &|who| {
        rest(gpu::start(who, gpu::Scenario::Rest)?)
    });
    add(
        "input",
        inputs,
        &|who| {
            let device = PipeDevice::start(MOUSE)?;
            let args = input::arguments(who, &device);
            Ok((Some(device), args))
        },
        &|who| rest(input::start(who, input::Scenario::Rest)?),
    );
    println!("### {NAME}\n\n{}", table.render());
    if !failures.is_empty() {
        println!("{}\n", failures.join("\n"));
    }
}

type Args<'a> = dyn Fn(&Contestant) -> anyhow::Result<(Option<PipeDevice>, Vec<String>)> + 'a;
type AtRest<'a> = dyn Fn(&Contestant) -> anyhow::Result<Rest> + 'a;

/// Starts all in turn, as often as there are rounds.
fn starts(who: &[Contestant], rounds: usize, args: &Args) -> Vec<anyhow::Result<Vec<Start>>> {
    let mut ready: Vec<_> = who.iter().map(|who| Ok((args(who)?, Vec::new()))).collect();
    for _ in 0..rounds {
        for (contestant, ready) in who.iter().zip(&mut ready) {
            let Ok(((device, args), starts)) = ready else {
                continue;
            };
            let environment = device.as_ref().map(PipeDevice::environment);
            match start(contestant, args, environment.as_ref().map_or(&[], |e| e)) {
                Ok(one) => starts.push(one),
                Err(e) => *ready = Err(e),
            }
        }
    }
    let finish = |ready: anyhow::Result<(_, Vec<Start>)>| ready.map(|(_, starts)| starts);
    ready.into_iter().map(finish).collect()
}

fn start(who: &Contestant, args: &[String], env: &[(&str, String)]) -> anyhow::Result<Start> {
    let begin = Instant::now();
    let mut started = who.start(args, env)?;
    let session = &mut started.session;
    session.negotiate(Session::usual_protocol_features())?;
    let wall = begin.elapsed().as_secs_f64() * 1e3;
    let cpu = Usage::of(started.program.pid())?.cpu.as_secs_f64() * 1e3;
    Ok(Start { wall, cpu })
}

fn rest(rig: Option<Box<dyn Rig>>) -> anyhow::Result<Rest> {
    let rig = rig.context("there is no program to rest")?;
    std::thread::sleep(WATCHED / 10);
    let before = Usage::of(rig.pid())?;
    std::thread::sleep(WATCHED);
    let used = Usage::of(rig.pid())?.since(before);
    Ok(Rest {
        memory: Resident::of(rig.pid())?,
        sleeps: used.sleeps,
        cpu: used.cpu,
    })
}
