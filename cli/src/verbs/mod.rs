//! The verbs, one per file: each has its arguments (`Args`) and `run`.

mod add;
mod confirm;
mod disable;
mod enable;
mod help;
mod libvirt_xml;
mod list;
mod list_backends;
mod list_devices;
mod monitor;
mod qemu_args;
mod remove;
mod restart;
mod show_log;
mod start;
mod status;
mod stop;
mod unit_control;

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::exit;
use crate::output::{Output, OutputArgs};
use crate::systemd::Target;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    ListDevices(list_devices::Args),
    ListBackends(list_backends::Args),
    Status(status::Args),
    Log(show_log::Args),
    Monitor(monitor::Args),
    Add(Box<add::Args>),
    Remove(remove::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Enable(enable::Args),
    Disable(disable::Args),
    QemuArgs(qemu_args::Args),
    LibvirtXml(libvirt_xml::Args),
    Help(help::Args),
}

/// Why a verb failed. The messages are whole sentences for people: `main` shows them as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Devices(#[from] crate::devices::Error),
    #[error(transparent)]
    Systemd(#[from] crate::systemd::Error),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    #[error("No such backend: {selector}. See 'vhostctl list'.")]
    NoBackend { selector: String },
    #[error("No such backend: {selector}. See 'vhostctl list', or create it with 'vhostctl add'.")]
    Unknown { selector: String },
    #[error("Unknown verb: {name}. See 'vhostctl --help'.")]
    NoVerb { name: String },
    #[error("Backends are system units; --user is not supported.")]
    User,
    /// A VMM would lose a device, and nobody said that this is meant.
    #[error("{losses}\nNothing was changed. Shut the VM down first, or use --force.")]
    Connected { losses: String },
    #[error("Nothing was changed.")]
    Declined,
    /// With some of several it went wrong; the others are done.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// What went wrong with a unit, and what was logged of it.
    #[error("{error} Its log:\n{}", log.join("\n"))]
    Logged {
        error: crate::systemd::Error,
        log: Vec<String>,
    },
    #[error(transparent)]
    Add(#[from] add::Error),
    #[error(transparent)]
    NoDevice(#[from] crate::vmm::NoDevice),
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
    /// The exit status; of several errors, that of the first.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoBackend { .. } => exit::UNKNOWN_STATE,
            Self::Unknown { .. } => exit::NOT_FOUND,
            Self::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                exit::DENIED
            }
            Self::Add(error) => error.exit_code(),
            Self::Systemd(error) | Self::Logged { error, .. } => error.exit_code(),
            Self::Several(errors) => errors.first().map_or(exit::FAILURE, Self::exit_code),
            _ => exit::FAILURE,
        }
    }

    /// Whether it is about one backend, so that others can be gone on with.
    fn is_of_one(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::File { .. } | Self::Logged { .. } => true,
            Self::Systemd(error) => error.is_of_unit(),
            _ => false,
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

fn lines(errors: &[Error]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A number of lines, for clap.
fn lines_number(text: &str) -> Result<u32, String> {
    // Not what `parse` takes besides: a sign.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("'{text}' is not a number of lines"))
}

/// What to do about a file that cannot be written.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            " This changes files in /etc/systemd/system. Run it as root (sudo)."
        }
        _ => "",
    }
}

/// Does what the command line says; the exit status says how it is, where a verb answers a question.
pub(crate) fn run(
    verb: Option<Verb>,
    target: &Target,
    output: &OutputArgs,
) -> Result<ExitCode, Error> {
    let output = Output::new(output);
    if target.user {
        return Err(Error::User);
    }
    match verb.unwrap_or(Verb::List(list::Args::default())) {
        Verb::List(args) => list::run(&args, target, &output),
        Verb::ListDevices(args) => list_devices::run(&args, target, &output),
        Verb::ListBackends(args) => list_backends::run(&args, &output),
        Verb::Status(args) => return status::run(&args, target, &output),
        Verb::Log(args) => show_log::run(&args, target, &output),
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
        Verb::Help(args) => help::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}
