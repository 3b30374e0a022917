//! `vhostctl help`: what `--help` says, of the program or of a verb.

use clap::{CommandFactory as _, Parser as _};

use crate::args;
use crate::completion;

use super::Error;

/// Show the help of vhostctl or of a verb
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The verb
    #[arg(value_name = "VERB", add = completion::verbs())]
    verb: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let program = args::Args::command();
    let is_unknown = |name: &&String| program.find_subcommand(name).is_none();
    if let Some(name) = args.verb.as_ref().filter(is_unknown) {
        return Err(Error::NoVerb { name: name.clone() });
    }
    let line = std::iter::once("vhostctl").chain(args.verb.as_deref());
    // To the parser, help is what keeps it from its task.
    match args::Args::try_parse_from(line.chain(["--help"])) {
        Err(help) => Ok(help.print()?),
        Ok(_) => Ok(()),
    }
}
