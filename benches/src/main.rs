// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Measures vhost-user-gpu and vhost-user-input programs side by side.
//!
//! Each is driven over its socket by the same front-end, in rounds in which all have their turn, and
//! is charged for the processor time that the kernel counted for it. See docs/performance.md.

mod baseline;
mod console;
mod gpu;
mod input;
mod interrupt;
mod kept;
mod measure;
mod parts;
mod pipe;
mod program;
mod qemu;
mod scale;
mod scattered;
mod startup_and_idle;
mod syscalls;
mod table;
mod usage;
mod window;
mod workload;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use frontend::gpu::Rect;

use measure::{Effort, Record, compare};
use program::{MeasuredProgram, Style};
use table::{Table, number};

/// Measures vhost-user-gpu and vhost-user-input programs side by side.
#[derive(Debug, Parser)]
struct Args {
    /// Measure this vhost-user-gpu program as well
    #[arg(long, value_name = "NAME=PATH", value_parser = MeasuredProgram::parse)]
    gpu: Vec<MeasuredProgram>,
    /// Measure this vhost-user-input program as well
    #[arg(long, value_name = "NAME=PATH", value_parser = MeasuredProgram::parse)]
    input: Vec<MeasuredProgram>,
    /// Measure this benches/parts program as well; the first one is compared with the others, and nothing else is measured
    #[arg(long, value_name = "NAME=PATH", value_parser = parts::Version::parse)]
    parts: Vec<parts::Version>,
    /// Fetch no other programs to compare with
    #[arg(long)]
    no_peers: bool,
    /// Measure so many VMs instead, in turn, by the units under a private systemd, and vhostctl beside systemctl (as root)
    #[arg(long, value_name = "VMS", value_delimiter = ',', num_args = 0.., default_missing_values = ["10", "50", "100", "200"])]
    scale: Vec<std::num::NonZeroUsize>,
    /// Measure only work whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rounds of which medians are taken
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each program works in each round
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 100)]
    time: u64,
    /// Starts of the programs over which these rounds are spread where the cost of kept state is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let word = words.next();
    if let (Some(baseline::WORD), Some(memory), Some(size)) =
        (word.as_deref(), words.next(), words.next())
    {
        return baseline::serve(Path::new(&memory), size.parse()?);
    }
    let args = Args::parse();
    interrupt::watch()?;
    if !args.parts.is_empty() {
        return parts::show(&args.parts, args.rounds.into());
    }
    if !args.scale.is_empty() {
        let sizes: Vec<usize> = args.scale.iter().map(|size| size.get()).collect();
        return scale::show(&sizes, args.rounds.into());
    }
    let mut notes = Vec::new();
    let mut gpus = vec![MeasuredProgram::ours("vhost-user-gpu")?];
    let mut inputs = vec![MeasuredProgram::ours("vhost-user-input")?];
    if !args.no_peers {
        gpus.extend(program::debian_gpus(&mut |text| notes.push(text)));
        match program::vhost_device_input() {
            Some(peer) => inputs.push(peer),
            None => notes.push("vhost-device-input: not in build/peers".into()),
        }
    }
    gpus.extend(args.gpu.iter().cloned());
    inputs.extend(args.input.iter().cloned());
    let baseline = MeasuredProgram {
        name: "baseline".into(),
        path: std::env::current_exe()?,
        style: Style::Baseline,
    };
    let trouble = syscalls::missing();
    let bench = Bench {
        effort: Effort {
            rounds: args.rounds.into(),
            time: Duration::from_millis(args.time),
        },
        starts: args.starts.into(),
        count_syscalls: trouble.is_none(),
    };
    notes.extend(trouble);
    let wanted = |name: &str| name.contains(&args.only);

    let gpus_and_baseline = [&gpus[..], &[baseline]].concat();
    for (name, scenario) in gpu_work().into_iter().filter(|(name, _)| wanted(name)) {
        interrupt::check()?;
        bench.show(name, &gpus_and_baseline, |who| gpu::start(who, scenario));
    }
    let own = [&gpus[..1], &args.gpu[..]].concat();
    for (name, scenario) in OWN_WORK.into_iter().filter(|(name, _)| wanted(name)) {
        interrupt::check()?;
        bench.show(name, &own, |who| gpu::start(who, scenario));
    }
    let windows = [
        MeasuredProgram::part("ours", Style::Backend),
        MeasuredProgram::part("QEMU", Style::OwnGpu),
    ];
    for (name, scenario) in OWN_WORK.into_iter().filter(|(_, work)| work.is_3d()) {
        let name = format!("{name}, in a window of QEMU");
        if !wanted(&name) {
            continue;
        }
        interrupt::check()?;
        if let Some(trouble) = window::missing() {
            notes.push(trouble);
            break;
        }
        let effort = Effort {
            time: bench.effort.time * window::TIMES,
            ..bench.effort
        };
        let bench = Bench { effort, ..bench };
        bench.show(&name, &windows, |who| {
            Ok(Some(Box::new(window::Window::start(who, scenario)?)))
        });
    }
    for (name, scenario) in INPUT_WORK.into_iter().filter(|(name, _)| wanted(name)) {
        interrupt::check()?;
        bench.show(name, &inputs, |who| input::start(who, scenario));
    }
    interrupt::check()?;
    let gpu_programs = kept::Programs {
        measured: &gpus,
        more: args.gpu.len(),
    };
    let input_programs = kept::Programs {
        measured: &inputs,
        more: args.input.len(),
    };
    kept::show(&bench, &gpu_programs, &input_programs, &wanted);
    let mut consoles = vec![MeasuredProgram::part("ours", Style::Console)];
    if !args.no_peers {
        consoles.push(MeasuredProgram::part("QEMU", Style::Qemu));
    }
    for work in console::work().filter(|work| wanted(&work.name)) {
        interrupt::check()?;
        let effort = Effort {
            time: bench.effort.time * work.times,
            ..bench.effort
        };
        let bench = Bench { effort, ..bench };
        bench.show(&work.name, &consoles, |who| console::start(who, work.kind));
    }
    interrupt::check()?;
    if wanted(startup_and_idle::NAME) {
        startup_and_idle::show(&gpus, &inputs, bench.effort.rounds);
    }
    for note in notes {
        println!("- {note}");
    }
    interrupt::check()
}

fn gpu_work() -> Vec<(&'static str, gpu::Scenario)> {
    use gpu::Scenario::{Attach, Commands, Cursor, Draw, Resources};
    const FHD: (u32, u32) = (1920, 1080);
    const UHD: (u32, u32) = (3840, 2160);
    let patch = Rect::new(700, 500, 64, 64);
    let all = |(width, height)| Rect::sized(width, height);
    let draw = |screen, damage, changed| Draw {
        screen,
        damage,
        changed,
    };
    let part = Rect::new(700, 500, 400, 300);
    let pixel = Rect::new(700, 500, 1, 1);
    let commands = |count, side| Commands { count, side };
    vec![
        (
            "1920x1080 flushed, all changed",
            draw(FHD, all(FHD), all(FHD)),
        ),
        (
            "1920x1080 flushed, 64x64 changed",
            draw(FHD, all(FHD), patch),
        ),
        (
            "3840x2160 flushed, all changed",
            draw(UHD, all(UHD), all(UHD)),
        ),
        (
            "3840x2160 flushed, 64x64 changed",
            draw(UHD, all(UHD), patch),
        ),
        ("400x300 flushed, all changed", draw(FHD, part, part)),
        ("64x64 flushed, all changed", draw(FHD, patch, patch)),
        ("1x1 flushed, all changed", draw(FHD, pixel, pixel)),
        ("cursor moved", Cursor),
        ("1 command a kick", commands(1, 8)),
        ("10 commands a kick", commands(10, 8)),
        ("100 commands a kick", commands(100, 8)),
        ("1 command a kick, 1x1", commands(1, 1)),
        ("100 commands a kick, 1x1", commands(100, 1)),
        ("1 command a kick, 10 resources", Resources(10)),
        ("1 command a kick, 10000 resources", Resources(10_000)),
        ("64 entries attached and detached", Attach(64)),
        ("1024 entries attached and detached", Attach(1024)),
        ("8192 entries attached and detached", Attach(8192)),
    ]
}

/// What QEMU's C program does not do, or not without a GPU.
const OWN_WORK: [(&str, gpu::Scenario); 4] = [
    (
        "OpenGL, a frame of 1000 small command streams",
        gpu::Scenario::Submits(1000),
    ),
    (
        "OpenGL, 1920x1080 cleared and read back",
        gpu::Scenario::Readback,
    ),
    (
        "1920x1080 flushed of a blob, all changed",
        gpu::Scenario::DrawBlob {
            screen: (1920, 1080),
            damage: Rect::sized(1920, 1080),
            changed: Rect::sized(1920, 1080),
        },
    ),
    (
        "1920x1080 flushed of a blob, 64x64 changed",
        gpu::Scenario::DrawBlob {
            screen: (1920, 1080),
            damage: Rect::sized(1920, 1080),
            changed: Rect::new(700, 500, 64, 64),
        },
    ),
];

const INPUT_WORK: [(&str, input::Scenario); 3] = [
    (
        "mouse, one report of 3 events at a time",
        input::Scenario::Mouse,
    ),
    (
        "mouse, 8000 reports of 3 events a second",
        input::Scenario::MouseAtRate,
    ),
    (
        "touch screen, one report of 31 events at a time",
        input::Scenario::Touch,
    ),
];

pub(crate) struct Bench {
    pub(crate) effort: Effort,
    /// Over how many starts the rounds are spread where the order of starts matters.
    pub(crate) starts: usize,
    pub(crate) count_syscalls: bool,
}

impl Bench {
    /// Measures one kind of work and prints its table.
    fn show(
        &self,
        name: &str,
        who: &[MeasuredProgram],
        start: impl Fn(&MeasuredProgram) -> anyhow::Result<Option<Box<dyn workload::Workload>>>,
    ) {
        let results = compare(who, self.effort, self.count_syscalls, start);
        if interrupt::is_noticed() {
            return;
        }
        let record = |n: usize| results.get(n)?.as_ref()?.as_ref().ok();
        // The first is ours; the others, but for the baseline, are its peers.
        let peers = (1..who.len()).filter(|n| who[*n].style != Style::Baseline);
        let best = peers
            .filter_map(record)
            .min_by(|a, b| cpu(a).total_cmp(&cpu(b)));
        let limits = (0..who.len()).filter(|n| who[*n].style == Style::Baseline);
        let least = limits.filter_map(record).next();
        let mut table = Table::new(&[
            "", "CPU µs", "to peer", "to base", "per s", "p50 µs", "p99 µs", "sleeps", "syscalls",
            "KiB sent",
        ]);
        let mut failures = Vec::new();
        for (program, result) in who.iter().zip(&results) {
            match result {
                Some(Ok(record)) => table.row(cells(&program.name, record, best, least)),
                Some(Err(e)) => {
                    table.row(vec![program.name.clone()]);
                    failures.push(format!("- {}: {e:#}", program.name));
                }
                None => {}
            }
        }
        println!("### {name}\n\n{}", table.render());
        if !failures.is_empty() {
            println!("{}\n", failures.join("\n"));
        }
    }
}

fn cpu(record: &Record) -> f64 {
    record.median(|round| round.cpu)
}

fn cells(
    name: &str,
    record: &Record,
    best: Option<&Record>,
    least: Option<&Record>,
) -> Vec<String> {
    let ratio = |to: Option<&Record>| to.map_or("-".into(), |to| number(record.ratio(to)));
    let micros = |share| number(record.latency(share).as_secs_f64() * 1e6);
    vec![
        name.to_owned(),
        number(cpu(record)),
        ratio(best),
        ratio(least),
        number(1.0 / record.median(|round| round.latency)),
        micros(0.5),
        micros(0.99),
        number(record.median(|round| round.sleeps)),
        record.syscalls.map_or("-".into(), number),
        number(record.median(|round| round.bytes) / 1024.0),
    ]
}
