//! vhostctl: finds, makes and manages the vhost-user backends of virtual machines, in the manner of
//! systemd's own tools.
//!
//! One room per outside world, so that nothing else knows it: [`devices`] is udev, [`systemd`] is
//! D-Bus, [`journal`] is the log, [`output`] is the terminal. A verb of the command line is a file of [`verbs`].

mod args;
mod completion;
mod descriptors;
mod devices;
mod front_end;
mod holders;
mod human;
mod instance;
mod journal;
mod output;
mod selector;
mod settings;
mod systemd;
mod unit_file;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    completion::answer(args::Args::command);
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        // Also the way of --help and --version. Bad usage is 1 as systemctl has it, not clap's 2.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match verbs::run(args.verb, &args.target, &args.output) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}
