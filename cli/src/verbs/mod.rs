// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs. Each has its arguments and `run` in a file of its own, with two exceptions: `start`, `stop`, `enable` and
//! `disable` are in `start_stop`, and `log` is in `show_log`, as a module `log` would shadow the crate.
//! `shared` has what several verbs need.

mod add;
mod check;
mod error;
mod help;
mod libvirt_xml;
mod list;
mod list_backends;
mod list_devices;
mod monitor;
mod qemu_args;
mod release;
mod remove;
mod restart;
mod screenshot;
mod shared;
mod show_log;
mod start_stop;
mod status;
mod view;

use std::process::ExitCode;

use clap::{Command, Subcommand};

use crate::output::{Output, OutputArgs};
use crate::systemd::Target;

pub(crate) use error::Error;
use shared::command_there::command_there;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    ListDevices(list_devices::Args),
    ListBackends(list_backends::Args),
    Status(status::Args),
    Log(show_log::Args),
    Monitor(monitor::Args),
    View(view::Args),
    Screenshot(screenshot::Args),
    Add(Box<add::Args>),
    Remove(remove::Args),
    Start(start_stop::StartArgs),
    Stop(start_stop::StopArgs),
    Restart(restart::Args),
    Release(release::ReleaseArgs),
    Grab(release::GrabArgs),
    Enable(start_stop::EnableArgs),
    Disable(start_stop::DisableArgs),
    QemuArgs(qemu_args::Args),
    LibvirtXml(libvirt_xml::Args),
    Check(Box<check::Args>),
    Help(help::Args),
}

/// Which hosts a verb works on.
enum Reach {
    /// That of `--host` too: it needs systemd alone.
    AnyHost,
    /// It needs files, devices or programs of the host that it runs on. With its name.
    ThisHost(&'static str),
}

impl Verb {
    fn reach(&self) -> Reach {
        match self {
            Self::ListDevices(_) => Reach::ThisHost("list-devices"),
            Self::ListBackends(_) => Reach::ThisHost("list-backends"),
            Self::Log(_) => Reach::ThisHost("log"),
            Self::Monitor(args) if args.is_of_devices() => Reach::ThisHost("monitor --devices"),
            Self::Add(_) => Reach::ThisHost("add"),
            Self::Remove(_) => Reach::ThisHost("remove"),
            Self::Check(_) => Reach::ThisHost("check"),
            Self::List(_)
            | Self::Status(_)
            | Self::Monitor(_)
            | Self::View(_)
            | Self::Screenshot(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Release(_)
            | Self::Grab(_)
            | Self::Enable(_)
            | Self::Disable(_)
            | Self::QemuArgs(_)
            | Self::LibvirtXml(_)
            | Self::Help(_) => Reach::AnyHost,
        }
    }
}

/// Runs a verb of `program`; without one, `list`. The exit status is the answer of a verb that answers a question.
pub(crate) fn run(
    verb: Option<Verb>,
    target: &Target,
    output: &OutputArgs,
    program: fn() -> Command,
) -> Result<ExitCode, Error> {
    let output = Output::new(output);
    if target.user {
        return Err(Error::User);
    }
    let verb = verb.unwrap_or(Verb::List(list::Args::default()));
    if let (Some(host), Reach::ThisHost(verb)) = (&target.host, verb.reach()) {
        return Err(Error::ThisHostOnly {
            verb,
            host: host.to_string(),
            command: command_there(host, std::env::args_os()),
        });
    }
    match verb {
        Verb::List(args) => list::run(&args, target, &output),
        Verb::ListDevices(args) => list_devices::run(&args, &output),
        Verb::ListBackends(args) => list_backends::run(&args, &output),
        Verb::Status(args) => return status::run(&args, target, &output),
        Verb::Log(args) => show_log::run(&args, target, &output),
        Verb::Monitor(args) => monitor::run(&args, target, &output),
        Verb::View(args) => return view::run(&args, target, &output),
        Verb::Screenshot(args) => screenshot::run(&args, target, &output),
        Verb::Add(args) => add::run(&args, target, &output),
        Verb::Remove(args) => remove::run(&args, target, &output),
        Verb::Start(args) => start_stop::run(&args, target, &output),
        Verb::Stop(args) => start_stop::run(&args, target, &output),
        Verb::Restart(args) => restart::run(&args, target, &output),
        Verb::Release(args) => release::run(&args, target, &output),
        Verb::Grab(args) => release::run(&args, target, &output),
        Verb::Enable(args) => start_stop::run(&args, target, &output),
        Verb::Disable(args) => start_stop::run(&args, target, &output),
        Verb::QemuArgs(args) => qemu_args::run(&args, target, &output),
        Verb::LibvirtXml(args) => libvirt_xml::run(&args, target, &output),
        Verb::Check(args) => return check::run(&args, &output),
        Verb::Help(args) => help::run(&args, program),
    }?;
    Ok(ExitCode::SUCCESS)
}
