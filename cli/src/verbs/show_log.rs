// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl log`: the messages of backends, and those of systemd about them.

use crate::backends;
use crate::completion;
use crate::exit;
use crate::journal;
use crate::output::{Json, Output};
use crate::selector::{self, Selector};
use crate::systemd::{self, Target};

use super::error::Error;
use super::shared::arguments;

/// Show the log of backends
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows the log of all backends, of those of a VM, or of one, including backends that were removed. journalctl(1)
reads the log; for other searches, use it with -u and the name of the unit. Without --follow, a name of which there is
neither a backend nor a line in the log is an error (exit status 5).")]
pub(crate) struct Args {
    /// Show the log of these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", add = completion::backends())]
    backends: Vec<Selector>,

    /// Follow the log: show new messages until interrupted
    #[arg(short, long)]
    follow: bool,

    /// Show the last N lines [default with --follow: 10]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = arguments::line_count)]
    lines: Option<u32>,
}

/// Whether there is something to show of it, or a backend that has logged nothing. Also if that cannot be told.
fn is_known(selector: &Selector, target: &Target) -> bool {
    if journal::last(&selector.units(), 1).map_or(true, |lines| !lines.is_empty()) {
        return true;
    }
    let names = systemd::ask(target, async |queries| backends::names(queries).await);
    names.map_or(true, |names| {
        names.iter().any(|name| selector.matches(name))
    })
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let units = if args.backends.is_empty() {
        selector::every_unit()
    } else {
        args.backends.iter().flat_map(Selector::units).collect()
    };
    if !args.follow {
        let unknown = args.backends.iter().filter(|one| !is_known(one, target));
        let unknown = unknown.map(|selector| Error::NoSuchBackend {
            selector: selector.to_string(),
            exit_code: exit::NOT_FOUND,
        });
        Error::several(unknown.collect())?;
    }
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
    Err(journal::exec(journalctl).into())
}
