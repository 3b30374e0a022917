//! vhostctl: finds, makes and manages the vhost-user backends of virtual machines, in the manner of
//! systemd's own tools.
//!
//! One room per outside world, so that nothing else knows it: [`devices`] is udev, [`systemd`] is
//! D-Bus, [`journal`] is the log, [`output`] is the terminal. A verb of the command line is a file of [`verbs`].

// What is shown goes by `output`, which escapes it.
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
mod selector;
mod settings;
mod socket_permissions;
mod systemd;
mod unit_file;
mod unit_folders;
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
        // Bad usage is 1 as systemctl has it, not clap's 2.
        Err(error) if error.use_stderr() => {
            let program = args::Args::command();
            output::complain(usage::explain(&error, &program, std::env::args_os()));
            return ExitCode::from(exit::FAILURE);
        }
        // The way of --help and --version.
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
