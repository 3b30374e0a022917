//! The verbs, one per file: each has its arguments (`Args`) and `run`.

mod add;
mod change;
mod disable;
mod enable;
mod libvirt_xml;
mod list;
mod list_backends;
mod list_devices;
mod log;
mod monitor;
mod qemu_args;
mod remove;
mod restart;
mod start;
mod status;
mod stop;

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::output::{Output, OutputArgs};
use crate::systemd::Target;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    List(list::Args),
    ListDevices(list_devices::Args),
    ListBackends(list_backends::Args),
    Status(status::Args),
    Log(log::Args),
    Monitor(monitor::Args),
    Add(add::Args),
    Remove(remove::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Enable(enable::Args),
    Disable(disable::Args),
    QemuArgs(qemu_args::Args),
    LibvirtXml(libvirt_xml::Args),
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
    NoBackend { selector: String },
    #[error(
        "There is no backend {selector}. 'vhostctl list' shows all there are, 'vhostctl add' makes one."
    )]
    Unknown { selector: String },
    #[error(transparent)]
    Add(#[from] add::Error),
    #[error(transparent)]
    NoDevice(#[from] crate::front_end::NoDevice),
    #[error("{0}")]
    Jobs(String),
    #[error("Failed to {what} {path}: {source}.{}", advice(source))]
    File {
        what: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("Failed to write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// The exit status, as systemctl's: what the LSB says where it says something.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoBackend { .. } => ExitCode::from(4),
            Self::Add(error) => ExitCode::from(error.exit_code()),
            Self::Unknown { .. } => ExitCode::from(5),
            Self::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                ExitCode::from(4)
            }
            Self::Systemd(error) => ExitCode::from(error.exit_code()),
            _ => ExitCode::FAILURE,
        }
    }
}

impl Error {
    /// Something about a file.
    fn file(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            what,
            path: path.display().to_string(),
            source,
        }
    }
}

/// What to do about a file that cannot be written.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            " What is added or removed are files of systemd's, which are root's: run it as root (sudo)."
        }
        _ => "",
    }
}

/// Does what the command line says; the exit status says how it is, where a verb answers a question.
pub fn run(verb: Option<Verb>, target: &Target, output: &OutputArgs) -> Result<ExitCode, Error> {
    let output = Output::new(output);
    match verb.unwrap_or(Verb::List(list::Args {})) {
        Verb::List(args) => list::run(&args, target, &output),
        Verb::ListDevices(args) => list_devices::run(&args, target, &output),
        Verb::ListBackends(args) => list_backends::run(&args, &output),
        Verb::Status(args) => return status::run(&args, target, &output),
        Verb::Log(args) => log::run(&args, target, &output),
        Verb::Monitor(args) => monitor::run(&args, target, &output),
        Verb::Add(args) => add::run(&args, target, &output),
        Verb::Start(args) => start::run(&args, target, &output),
        Verb::Stop(args) => stop::run(&args, target, &output),
        Verb::Restart(args) => restart::run(&args, target, &output),
        Verb::Enable(args) => enable::run(&args, target, &output),
        Verb::Disable(args) => disable::run(&args, target, &output),
        Verb::QemuArgs(args) => qemu_args::run(&args, target, &output),
        Verb::LibvirtXml(args) => libvirt_xml::run(&args, target, &output),
        Verb::Remove(args) => remove::run(&args, target, &output),
    }?;
    Ok(ExitCode::SUCCESS)
}
