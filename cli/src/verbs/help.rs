// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl help`: what `--help` says, of the program or of a verb.

use std::ffi::OsStr;

use clap::{Command, Subcommand as _};
use clap_complete::engine::ArgValueCompleter;

use crate::completion::{Candidate, candidates};

use super::Verb;
use super::error::Error;

/// Show the help of vhostctl or of a verb
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The verb
    #[arg(value_name = "VERB", add = verbs())]
    verb: Option<String>,
}

pub(super) fn run(args: &Args, program: fn() -> Command) -> Result<(), Error> {
    let is_unknown = |name: &&String| program().find_subcommand(name).is_none();
    if let Some(name) = args.verb.as_ref().filter(is_unknown) {
        return Err(Error::NoVerb { name: name.clone() });
    }
    let line = std::iter::once("vhostctl").chain(args.verb.as_deref());
    // The parser takes --help for an error.
    match program().try_get_matches_from(line.chain(["--help"])) {
        Err(help) => Ok(help.print()?),
        Ok(_) => Ok(()),
    }
}

/// Completes verbs.
fn verbs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let program = Verb::augment_subcommands(Command::new("vhostctl"));
            let verbs = program.get_subcommands().map(|verb| Candidate {
                name: verb.get_name().to_owned(),
                help: verb
                    .get_about()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            });
            verbs.collect()
        })
    })
}
