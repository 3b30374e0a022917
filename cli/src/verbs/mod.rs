//! The verbs, one per file: each has its arguments (`Args`) and `run`.

mod list;
mod list_backends;
mod list_devices;
mod log;
mod monitor;
mod status;

use std::process::ExitCode;

use clap::Subcommand;

use crate::output::Output;
use crate::selector::Selector;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    List(list::Args),
    ListDevices(list_devices::Args),
    ListBackends(list_backends::Args),
    Status(status::Args),
    Log(log::Args),
    Monitor(monitor::Args),
}

/// Why a verb failed. The messages are whole sentences for people: `main` shows them as they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Devices(#[from] crate::devices::Error),
    #[error(transparent)]
    Systemd(#[from] crate::systemd::Error),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    #[error("There is no backend {selector}. 'vhostctl list' shows all there are.")]
    NoBackend { selector: Selector },
    #[error("Failed to write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// The exit status, as systemctl's: what the LSB says where it says something.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoBackend { .. } => ExitCode::from(4),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line says; the exit status says how it is, where a verb answers a question.
pub fn run(args: crate::args::Args) -> Result<ExitCode, Error> {
    let output = Output::new(&args.output);
    let target = &args.target;
    match args.verb.unwrap_or(Verb::List(list::Args {})) {
        Verb::List(args) => list::run(&args, target, &output),
        Verb::ListDevices(args) => list_devices::run(&args, target, &output),
        Verb::ListBackends(args) => list_backends::run(&args, &output),
        Verb::Status(args) => return status::run(&args, target, &output),
        Verb::Log(args) => log::run(&args, target, &output),
        Verb::Monitor(args) => monitor::run(&args, target, &output),
    }?;
    Ok(ExitCode::SUCCESS)
}
