// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhostctl: finds, creates and manages the vhost-user backends of virtual machines, in the style of systemd's tools.
//!
//! Each outside interface has one module: udev [`devices`], D-Bus [`systemd`], the log [`journal`], the terminal
//! [`output`], VMMs [`vmm`]. [`backends`] puts systemd, files and devices together. Each verb of the command line is a
//! module of [`verbs`].

// All output goes through `output`, which escapes it.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod accounts;
mod args;
mod assignments;
mod backends;
mod completion;
mod descriptors;
mod devices;
mod exit;
mod format;
mod instance;
mod journal;
mod output;
mod remote_host;
mod selector;
mod settings;
mod socket_permissions;
mod ssh_forward;
mod systemd;
mod unit_folders;
mod unit_syntax;
mod usage;
mod values;
mod verbs;
mod vmm;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    completion::answer(args::Args::command);
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        // A usage error is 1, as of systemctl, not clap's 2.
        Err(error) if error.use_stderr() => {
            let program = args::Args::command();
            output::complain(usage::explain(&error, &program, std::env::args_os()));
            return ExitCode::from(exit::FAILURE);
        }
        // --help and --version.
        Err(error) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    match verbs::run(args.verb, &args.target, &args.output, args::Args::command) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
