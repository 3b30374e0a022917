//! `vhostctl help`: what `--help` says, of the program or of a verb.

use clap::CommandFactory as _;

use crate::args;
use crate::output::Output;

use super::Error;

/// Show the help of vhostctl or of a verb
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The verb
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Error> {
    let mut program = args::Args::command();
    // Gives the verbs what all of them have.
    program.build();
    let help = match &args.verb {
        None => program.render_long_help(),
        Some(name) => match program.find_subcommand_mut(name) {
            Some(verb) => verb.render_long_help(),
            None => return Err(Error::NoVerb { name: name.clone() }),
        },
    };
    output.lines(&help.to_string().lines().collect::<Vec<_>>())?;
    Ok(())
}
