// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tries vhost-user-gpu with `--virgl` on each render node of this machine, beside software, and prints one report to attach to a
//! bug: whether it draws and what a front-end is shown, what that costs, and what the sandbox refused or the units would have to
//! allow. It plays front-end, driver and display, and needs no VMM.

mod host;
mod refusals;
mod trial;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use trial::{Renderer, Subject, Trial};

const USAGE: &str = "\
usage: gpu-check [--program=PATH] [--dri=FOLDER] [--frames=N]

Tries vhost-user-gpu (--program=, by default the one beside this program) with --virgl on each render node in FOLDER (by default
/dev/dri), and prints a report. Times are medians of N frames, by default 30. The exit status is 0 if all held, 1 if not, 3 if there is no render node.";
/// The exit status where there is nothing to try.
const NO_NODE: u8 = 3;

struct Options {
    subject: Subject,
    dri: PathBuf,
}

fn options() -> anyhow::Result<Option<Options>> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut options = Options {
        subject: Subject {
            program: own.with_file_name("vhost-user-gpu"),
            frames: 30,
        },
        dri: PathBuf::from("/dev/dri"),
    };
    for word in std::env::args().skip(1) {
        match word.split_once('=') {
            Some(("--program", path)) => options.subject.program = path.into(),
            Some(("--frames", count)) => {
                options.subject.frames = count.parse::<NonZeroU16>()?.get()
            }
            Some(("--dri", path)) => options.dri = path.into(),
            None if word == "--help" => return Ok(None),
            _ => bail!("{word} is no option\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

fn main() -> anyhow::Result<ExitCode> {
    let Some(Options { subject, dri }) = options()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    if !subject.program.is_file() {
        bail!("there is no program {}", subject.program.display());
    }
    let nodes = host::render_nodes(&dri);
    if nodes.is_empty() {
        eprintln!(
            "There is no render node in {}: this machine has no GPU with a driver of the kernel's DRM, or it is not passed on to \
             this container.",
            dri.display()
        );
        return Ok(ExitCode::from(NO_NODE));
    }
    println!(
        "# OpenGL of vhost-user-gpu\n\n{}",
        host::describe(&subject.program)
    );
    let software = Trial::run(&subject, &Renderer::Software, None);
    let mut all_held = software.is_ok();
    for node in nodes {
        println!(
            "\n## {}\n\n{}\n",
            node.display(),
            host::describe_node(&node)
        );
        all_held &= report(&subject, &node, &software)?;
    }
    println!(
        "\n{}",
        match all_held {
            true => "All checks held.",
            false => "**Not all checks held.**",
        }
    );
    Ok(ExitCode::from(u8::from(!all_held)))
}

/// A row of the table: its name, and its cell for a trial.
type Row = (&'static str, fn(&Trial) -> String);

/// Tries a node, and prints what came of it. Returns whether all held.
fn report(
    subject: &Subject,
    node: &Path,
    software: &anyhow::Result<Trial>,
) -> anyhow::Result<bool> {
    let renderer = Renderer::Node(node.to_owned());
    let on_node = Trial::run(subject, &renderer, None);
    let rows: [Row; 8] = [
        ("renderer", |trial| trial.status.clone()),
        ("a screen of 1920x1080 is sent as", |trial| {
            trial.shown.to_string()
        }),
        ("what was drawn is read back right", |trial| {
            yes(trial.is_drawn_right)
        }),
        ("start until it serves, ms", |trial| millis(trial.start)),
        ("a frame until it is shown, ms", |trial| {
            millis(trial.frame.shown)
        }),
        (
            "processor time of a frame and of reading it back, ms",
            |trial| millis(trial.frame.cpu),
        ),
        ("reading a frame back, ms", |trial| {
            millis(trial.frame.read_back)
        }),
        ("ends well", |trial| yes(trial.ends_well)),
    ];
    println!("| | {} | software |\n| - | - | - |", node.display());
    for (name, cell) in rows {
        let cell = |trial: &anyhow::Result<Trial>| trial.as_ref().map_or("failed".into(), cell);
        println!("| {name} | {} | {} |", cell(&on_node), cell(software));
    }
    for (name, trial) in [("the node", &on_node), ("software", software)] {
        match trial {
            Err(error) => println!("\nWith {name} it failed:\n\n```text\n{error:#}\n```"),
            Ok(trial) if !trial.warnings.is_empty() => {
                println!(
                    "\nWith {name} it said:\n\n```text\n{}\n```",
                    trial.warnings.join("\n")
                );
            }
            Ok(_) => {}
        }
    }
    println!("\n### What the sandbox refuses\n");
    println!("{}", refusals::of_kernel_log(subject, &renderer)?);
    println!("\n### Files and devices\n");
    println!("{}", refusals::of_files(subject, &renderer, node)?);
    let is_right = |trial: &Trial| trial.is_drawn_right && trial.ends_well;
    Ok(on_node.as_ref().is_ok_and(is_right))
}

fn yes(is_so: bool) -> String {
    match is_so {
        true => "yes".into(),
        false => "**no**".into(),
    }
}

fn millis(time: std::time::Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}
