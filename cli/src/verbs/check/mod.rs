// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl check`: whether a backend keeps to the conventions, the protocol and its device's specification.

mod junit;
mod run;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::Duration;

use conformance::{DescriptorFile, Level, Outcome, Point, Report, Target};
use conventions::DeviceType;
use glob::Pattern;
use serde::Serialize;

use crate::completion;
use crate::descriptors::{self, DescriptorState, known};
use crate::exit as status;
use crate::output::{Cell, Emphasis, Output, Row};

use super::error::{CheckError, Error};
use run::Obstacle;

/// Check whether a backend keeps to the conventions and the vhost-user protocol
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
vhostctl check BACKEND|PROGRAM [--type=TYPE] [--only=GLOB,...] [--timeout=SECONDS] [--junit=FILE] [-- ARGS...]
       vhostctl check --list [--type=TYPE] [--only=GLOB,...]",
    after_help = "\
BACKEND is the name of an installed backend, as 'vhostctl list-backends' lists it; PROGRAM is a path with a slash. Every
point starts the program in a temporary folder, plays the management layer, the VMM and the guest, and ends it. It needs
no root, no systemd and no VMM.

ARGS are arguments without which the program does not serve: in them {folder} becomes the path of an empty folder, {file}
that of a file of 1 MiB, {socket} that of the socket, for a program without --socket-path, and {events} that of a socket at
which an input device takes events from the check, of 8 bytes as in a virtqueue:

  vhostctl check virtiofsd -- --shared-dir={folder} --sandbox=none
  vhostctl check passt -- --foreground --vhost-user --socket={socket}
  vhostctl check vhost-user-input -- --virtual=keyboard --events-socket={events}

RESULT is 'holds', 'fails', 'not tried' where the device is of another type or the backend does not offer what the point
is about, or 'unfinished' where the time was over or the check itself failed. The exit status is 0 if all required points
hold or were not tried; 1 if one fails, if no front-end is served, if the program cannot be started, or for a usage error;
2 if none fails and one is unfinished, or the check itself failed, at a point of any level; 5 if there is no such backend
or program. Recommended and extra points do not count else. A signal n that ends the check ends what it started, and makes
the exit status 128 + n."
)]
pub(crate) struct Args {
    /// The backend or program
    #[arg(
        value_name = "BACKEND|PROGRAM",
        required_unless_present = "list",
        conflicts_with = "list",
        value_hint = clap::ValueHint::ExecutablePath,
        add = completion::installed_programs()
    )]
    backend: Option<OsString>,

    /// The type of the device; default: what the capabilities, the descriptor or the name of the program say
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = device_type)]
    device_type: Option<DeviceType>,

    /// Show the points, and check nothing
    #[arg(long)]
    list: bool,

    /// Only points whose names match one of the patterns
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    only: Vec<Pattern>,

    /// How long a point may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = seconds)]
    timeout: u64,

    /// Also write the results to a file, in the XML of JUnit
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    junit: Option<PathBuf>,

    /// Arguments of the program
    #[arg(value_name = "ARGS", last = true)]
    arguments: Vec<OsString>,
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|it| (1..=3600).contains(it));
    seconds.ok_or_else(|| format!("'{text}' is not a number of seconds from 1 to 3600"))
}

/// The type of a device that the command line names.
fn device_type(name: &str) -> Result<DeviceType, String> {
    name.parse::<DeviceType>().map_err(|error| {
        let all = DeviceType::ALL.map(|it| it.name()).join(", ");
        format!(
            "{error}, only {all}; for a device of another type leave --type out: points that need its type are not tried"
        )
    })
}

/// A point in the list.
#[derive(Debug, Serialize)]
struct Listed {
    point: &'static str,
    level: &'static str,
    types: Vec<&'static str>,
    asks: &'static str,
    section: &'static str,
}

impl Listed {
    fn new(point: &'static Point) -> Self {
        Self {
            point: point.name,
            level: point.level.name(),
            types: point.types.iter().map(|it| it.name()).collect(),
            asks: point.asks,
            section: point.section,
        }
    }
}

impl Row for Listed {
    const HEADER: &[&str] = &["POINT", "LEVEL", "TYPES", "ASKS"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(self.point),
            Cell::new(self.level),
            Cell::new(self.types.join(",")),
            Cell::new(self.asks),
        ]
    }
}

/// A point that was tried.
#[derive(Debug, Serialize)]
struct Checked {
    #[serde(flatten)]
    about: Listed,
    result: &'static str,
    seen: String,
    /// How long it took.
    seconds: f64,
    #[serde(skip)]
    emphasis: Emphasis,
    #[serde(skip)]
    is_error: bool,
}

impl Checked {
    fn new(report: &Report) -> Self {
        let (result, emphasis) = match (&report.outcome, report.point.level) {
            (Outcome::Holds(_), _) => ("holds", Emphasis::Good),
            (Outcome::Fails(_), Level::Required) => ("fails", Emphasis::Bad),
            (Outcome::Fails(_), _) => ("fails", Emphasis::Strong),
            (Outcome::NotTried(_), _) => ("not tried", Emphasis::Faint),
            (Outcome::Unfinished(_) | Outcome::CheckFailed(_), _) => {
                ("unfinished", Emphasis::Strong)
            }
        };
        Self {
            about: Listed::new(report.point),
            result,
            seen: report.outcome.seen().to_owned(),
            seconds: report.took.as_secs_f64(),
            emphasis,
            is_error: report.is_error(),
        }
    }

    fn fails(&self) -> bool {
        self.result == "fails"
    }

    /// Whether it is a required point with this result.
    fn is_required(&self, result: &str) -> bool {
        self.result == result && self.about.level == "required"
    }
}

impl Row for Checked {
    const HEADER: &[&str] = &["POINT", "LEVEL", "RESULT", "SEEN"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(self.about.point),
            Cell::new(self.about.level),
            Cell::new(self.result).emphasis(self.emphasis),
            Cell::new(&self.seen),
        ]
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<ExitCode, Error> {
    let wanted = |point: &&Point| {
        args.only.is_empty() || args.only.iter().any(|pattern| pattern.matches(point.name))
    };
    let is_idle = |pattern: &&Pattern| !conformance::points().any(|it| pattern.matches(it.name));
    if let Some(pattern) = args.only.iter().find(is_idle) {
        return Err(CheckError::NoPoint(pattern.to_string()).into());
    }
    let points: Vec<_> = conformance::points().filter(wanted).collect();
    let Some(backend) = &args.backend else {
        return list(args, points, output).map(|()| ExitCode::SUCCESS);
    };
    let mut target = find(backend)?.args(&args.arguments);
    target.device_type = args.device_type.or(target.device_type);
    let program = target.program.display().to_string();
    if !output.is_json() {
        output.hint(&format!("Checking {program}..."));
    }
    // What hides from its mark is found as well, on all kernels that are not very old.
    let _ = conformance::adopt_orphans();
    // Before all points are tried: a file that cannot be written is known at once.
    let junit = args.junit.as_deref().map(junit::Target::new).transpose()?;
    let limit = Duration::from_secs(args.timeout);
    let found = run::run(target, points, limit, !output.is_quiet());
    let found = found.map_err(CheckError::Signals)?;
    if let Some(junit) = junit {
        junit.write(&junit::document(&program, &found))?;
    }
    for folder in conformance::left_behind() {
        output.hint(&format!("{} could not be removed.", folder.display()));
    }
    match found.obstacle {
        Some(Obstacle::Start(error)) => {
            let said_already = format!("starting {program}: ");
            let error = error.strip_prefix(&said_already).unwrap_or(&error);
            let error = error.to_owned();
            return Err(CheckError::Start { program, error }.into());
        }
        Some(Obstacle::Own(why)) => return Err(CheckError::Own(why).into()),
        None => {}
    }
    let checked: Vec<_> = found.reports.iter().map(Checked::new).collect();
    if !output.json(&checked)? {
        show(&checked, output)?;
    }
    if let Some(why) = &found.unserved {
        output.hint(&format!(
            "{program} serves no front-end: {why}. Arguments without which it does not serve go after '--': see 'vhostctl \
             check --help'."
        ));
    }
    let unfinished = checked.iter().filter(|it| it.is_error).count();
    if unfinished > 0 {
        let unfinished = match unfinished {
            1 => "1 point was".into(),
            several => format!("{several} points were"),
        };
        output.hint(&format!(
            "{unfinished} not tried to the end. Where the time was over, --timeout= gives more."
        ));
    }
    if let Some(signal) = found.signal {
        // As a shell says it.
        exit(128 + signal);
    }
    // Points that were not tried because nothing is served are no success.
    let failed = found.unserved.is_some() || checked.iter().any(|it| it.is_required("fails"));
    Ok(ExitCode::from(match failed {
        true => status::FAILURE,
        false if unfinished > 0 => status::UNFINISHED,
        false => status::SUCCESS,
    }))
}

fn list(args: &Args, points: Vec<&'static Point>, output: &Output) -> Result<(), Error> {
    let of_type = |point: &&Point| {
        let wanted = args.device_type.as_ref();
        wanted.is_none_or(|it| point.types.is_empty() || point.types.contains(it))
    };
    let listed: Vec<_> = points
        .into_iter()
        .filter(of_type)
        .map(Listed::new)
        .collect();
    if !output.json(&listed)? {
        output.table(&listed)?;
        output.count(listed.len(), "point")?;
    }
    Ok(())
}

fn show(checked: &[Checked], output: &Output) -> Result<(), Error> {
    output.table(checked)?;
    if !output.legend() {
        return Ok(());
    }
    for failed in checked.iter().filter(|checked| checked.fails()) {
        let Listed {
            point,
            level,
            asks,
            section,
            ..
        } = failed.about;
        output.blank()?;
        output.lines(&[
            format!("{point} ({level}) fails: {}", failed.seen),
            format!("  {asks} [{section}]"),
        ])?;
    }
    let count = |result: &str| checked.iter().filter(|it| it.result == result).count();
    output.blank()?;
    let counts = [
        checked.len(),
        count("holds"),
        count("fails"),
        count("not tried"),
        count("unfinished"),
    ];
    output.lines(&[summary(counts)])?;
    Ok(())
}

/// How many points there are, hold, fail, were not tried and were not finished.
fn summary([all, hold, fail, not_tried, unfinished]: [usize; 5]) -> String {
    let of = |count: usize, one: &str, several: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    };
    format!(
        "{}: {}, {}, {}, {}.",
        of(all, "point", "points"),
        of(hold, "holds", "hold"),
        of(fail, "fails", "fail"),
        of(not_tried, "was not tried", "were not tried"),
        of(unfinished, "was not finished", "were not finished")
    )
}

/// The program that the command line names.
fn find(wanted: &OsString) -> Result<Target, Error> {
    let path = Path::new(wanted);
    if path.components().count() > 1 || path.is_absolute() {
        // The program is started in another folder. A link stays one: a program of many names knows itself by its own.
        let found = fs::metadata(path).and_then(|_| std::path::absolute(path));
        let path = found.map_err(|source| CheckError::Program {
            path: path.to_owned(),
            source,
        })?;
        return Ok(Target::program(path));
    }
    let name = wanted.to_string_lossy();
    let folders = descriptors::folders();
    let all = descriptors::list(&folders, false);
    let in_effect = |state| matches!(state, DescriptorState::Usable | DescriptorState::Broken);
    let found = all.into_iter().find(|descriptor| {
        in_effect(descriptor.state) && descriptor.is_called(&name) && descriptor.binary.is_some()
    });
    if let Some(descriptor) = found {
        let mut target = Target::program(descriptor.binary.unwrap_or_default());
        let told = descriptor.device_type.as_deref();
        target.device_type = told.and_then(|told| told.parse().ok());
        let path = descriptor.path;
        return Ok(target.descriptor(DescriptorFile { path, folders }));
    }
    let known = known::all_installed().find(|(known, _)| *known == name);
    let installed = known.and_then(|(name, device_type)| known::installed(name, device_type));
    match installed {
        Some(path) => Ok(Target::program(path)),
        None => Err(CheckError::NoProgram(name.into_owned()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_their_words() {
        assert_eq!(
            summary([1, 1, 0, 0, 0]),
            "1 point: 1 holds, 0 fail, 0 were not tried, 0 were not finished."
        );
        assert_eq!(
            summary([6, 3, 1, 1, 1]),
            "6 points: 3 hold, 1 fails, 1 was not tried, 1 was not finished."
        );
    }
}
