// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a host grows with its VMs: many backends under a systemd of our own, by the units that are installed.

mod commands;
mod groups;
mod host;
mod starts;
mod vm;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::interrupt;
use crate::table::{Table, number};
use crate::usage::Usage;
use commands::{Cost, Costs};
use groups::Pss;
use host::Host;
use starts::Start;
use vm::{FRAMES, Vm};

/// How long the backends are watched, idle and drawing.
const WATCHED: Duration = Duration::from_secs(5);
/// How long they get to become idle.
const SETTLE: Duration = Duration::from_secs(2);

/// What was measured so far.
struct Tables {
    work: Table,
    starts: Table,
    commands: Table,
}

/// Measures `sizes` VMs, each time as many, and prints the tables: of those that were measured, if something fails.
///
/// # Errors
/// If the private systemd or a backend fails.
pub(crate) fn show(sizes: &[usize], rounds: usize) -> anyhow::Result<()> {
    raise_file_limit()?;
    let mut host = Host::start()?;
    let mut tables = Tables {
        work: Table::new(&[
            "VMs",
            "PSS MiB",
            "of it shared MiB",
            "a GPU KiB",
            "an input KiB",
            "idle wake-ups/s",
            "idle CPU ms/s",
            "wake-ups a frame",
            "CPU µs a frame",
            "PID 1 MiB",
        ]),
        starts: Table::new(&[
            "VMs",
            "programs",
            "answered s",
            "CPU s: PID 1",
            "services",
            "others",
            "by hand s",
            "by hand CPU s",
        ]),
        commands: Table::new(&[
            "VMs",
            "command",
            "CPU ms",
            "systemctl ms",
            "to it",
            "wall to it",
            "manager ms",
            "manager to it",
        ]),
    };
    let mut measure = || -> anyhow::Result<()> {
        for &count in sizes {
            interrupt::check()?;
            eprintln!("measuring {count} VMs");
            tables.measure(&mut host, count, rounds)?;
        }
        Ok(())
    };
    let measured = measure();
    let Tables {
        work,
        starts,
        commands,
    } = &tables;
    println!("### idle, and drawing at 1 Hz\n\n{}", work.render());
    println!("### all started at once\n\n{}", starts.render());
    println!("### vhostctl beside systemctl\n\n{}", commands.render());
    measured
}

impl Tables {
    fn measure(&mut self, host: &mut Host, count: usize, rounds: usize) -> anyhow::Result<()> {
        host.configure(count)?;
        let by_hand = starts::by_hand(count)?;
        let (sessions, started) = starts::by_systemd(host, count)?;
        self.starts.row(start_cells(count, &started, &by_hand));
        let mut vms = Vec::new();
        for (index, sessions) in sessions.into_iter().enumerate() {
            let vm = Vm::start(sessions).with_context(|| format!("VM {}", index + 1));
            vms.push(vm?);
        }
        self.work.row(work_cells(host, &mut vms)?);
        for (name, costs) in commands::measure(host, rounds)? {
            self.commands.row(command_cells(count, name, &costs));
        }
        drop(vms);
        host.wait_left()
    }
}

/// Each device of a VM has some ten descriptors here.
fn raise_file_limit() -> anyhow::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

fn start_cells(count: usize, by_systemd: &Start, by_hand: &Start) -> Vec<String> {
    let seconds = |time: Duration| number(time.as_secs_f64());
    vec![
        count.to_string(),
        (count * host::DEVICES.len()).to_string(),
        seconds(by_systemd.wall),
        seconds(by_systemd.manager),
        seconds(by_systemd.services),
        seconds(by_systemd.others),
        seconds(by_hand.wall),
        seconds(by_hand.services),
    ]
}

/// Watches the backends while they are idle, and while each VM draws once a second.
fn work_cells(host: &Host, vms: &mut [Vm]) -> anyhow::Result<Vec<String>> {
    for vm in &mut *vms {
        vm.draw()?;
    }
    std::thread::sleep(SETTLE);
    let watch = |work: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<(f64, f64)> {
        let processes = host.backends()?;
        let before = Usage::of_all(&processes)?;
        work()?;
        let used = Usage::of_all(&processes)?.since(before);
        Ok((used.sleeps as f64, used.cpu.as_secs_f64()))
    };
    let begin = Instant::now();
    let (sleeps, cpu) = watch(&mut || {
        std::thread::sleep(WATCHED);
        interrupt::check()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let count = vms.len();
    let (drawing_sleeps, drawing_cpu) = watch(&mut || draw_at_one_hertz(vms))?;
    let frames = (count * FRAMES) as f64;
    let memory = Pss::of(&host.backends()?)?;
    let each = |kib: u64, of: usize| (kib as f64 / of as f64).round().to_string();
    let inputs = count * (host::DEVICES.len() - 1);
    Ok(vec![
        count.to_string(),
        number(memory.all() as f64 / 1024.0),
        number(memory.shared as f64 / 1024.0),
        each(memory.gpu, count),
        each(memory.input, inputs),
        number(sleeps / seconds),
        number(cpu * 1e3 / seconds),
        number(drawing_sleeps / frames),
        number(drawing_cpu * 1e6 / frames),
        number(host.manager_memory()? as f64 / 1024.0),
    ])
}

/// Each draws [`FRAMES`] times, evenly spread over as many seconds.
fn draw_at_one_hertz(vms: &mut [Vm]) -> anyhow::Result<()> {
    let step = Duration::from_secs(1) / u32::try_from(vms.len().max(1))?;
    let mut next = Instant::now();
    for _ in 0..FRAMES {
        interrupt::check()?;
        for vm in &mut *vms {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += step;
            vm.draw()?;
        }
    }
    Ok(())
}

fn command_cells(count: usize, name: &str, costs: &Costs) -> Vec<String> {
    let ours = &costs.ours;
    let mut cells = vec![count.to_string(), name.to_owned(), number(ours.cpu)];
    let to_peer = |of: fn(&Cost) -> f64| {
        let peer = costs.peer.as_ref();
        peer.map_or("-".into(), |peer| number(of(ours) / of(peer)))
    };
    cells.extend([
        costs.peer.map_or("-".into(), |peer| number(peer.cpu)),
        to_peer(|cost| cost.cpu),
        to_peer(|cost| cost.wall),
        number(ours.manager),
        to_peer(|cost| cost.manager),
    ]);
    cells
}
