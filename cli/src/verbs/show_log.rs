//! `vhostctl log`: what backends said, and what systemd said of them.

use crate::completion;
use crate::journal;
use crate::output::{Json, Output};
use crate::selector::{self, Selector};
use crate::systemd::Target;

use super::arguments;
use super::error::Error;

/// Show the log of backends
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows the log of all backends, of those of a VM, or of one; also what is left of those that are removed.
It is read by journalctl(1): for more ways to search it, use that with -u and the name of the unit.")]
pub(crate) struct Args {
    /// Show what these said
    #[arg(value_name = "VM[:NAME]", add = completion::backends())]
    backends: Vec<Selector>,

    /// Wait for more and show it as it comes
    #[arg(short, long)]
    follow: bool,

    /// Show the last N lines (with --follow, 10 unless told)
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = arguments::line_count)]
    lines: Option<u32>,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    target.local_only("log")?;
    let units = if args.backends.is_empty() {
        selector::every_unit()
    } else {
        args.backends.iter().flat_map(Selector::units).collect()
    };
    let mut journalctl = journal::journalctl(&units);
    if args.follow {
        journalctl.arg("--follow");
    }
    if let Some(lines) = args.lines {
        journalctl.arg(format!("--lines={lines}"));
    }
    match output.json_mode() {
        Some(Json::Pretty) => {
            journalctl.arg("--output=json-pretty");
        }
        Some(Json::Short) => {
            journalctl.arg("--output=json");
        }
        None => {}
    }
    if !output.legend() {
        journalctl.arg("--quiet");
    }
    if !output.pager() {
        journalctl.arg("--no-pager");
    }
    Err(journal::become_it(journalctl).into())
}
