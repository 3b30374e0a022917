//! The verbs, one per file: each has its arguments (`Args`) and `run`.

mod list;
mod list_backends;
mod list_devices;

use clap::Subcommand;

use crate::output::Output;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    List(list::Args),
    ListDevices(list_devices::Args),
    ListBackends(list_backends::Args),
}

/// Why a verb failed. The messages are whole sentences for people: `main` shows them as they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Devices(#[from] crate::devices::Error),
    #[error(transparent)]
    Systemd(#[from] crate::systemd::Error),
    #[error("Failed to write the result: {0}")]
    Output(#[from] std::io::Error),
}

/// Does what the command line says.
pub fn run(args: crate::args::Args) -> Result<(), Error> {
    let output = Output::new(&args.output);
    match args.verb.unwrap_or(Verb::List(list::Args {})) {
        Verb::List(args) => list::run(&args, &output),
        Verb::ListDevices(args) => list_devices::run(&args, &output),
        Verb::ListBackends(args) => list_backends::run(&args, &output),
    }
}
