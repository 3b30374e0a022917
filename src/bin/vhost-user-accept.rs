// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-accept: starts a backend program that does not take a listening socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use vhost_user_backends::accept::{BackendProgram, Error};
use vhost_user_backends::backend::{printable, usage_text};

const NAME: &str = "vhost-user-accept";

/// Accept a front-end's connection for a backend program that takes no listening socket
///
/// The listening socket comes by socket activation. PROGRAM replaces this process and has the connection
/// as file descriptor 3; with --socket-path it runs beside this process, which passes messages on.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Options {
    /// Connect to PROGRAM at PATH, where it listens, and pass messages on; of several paths, at the first where it
    /// does
    #[arg(long, value_name = "PATH")]
    socket_path: Vec<PathBuf>,

    /// Program to run, by its absolute path, and its arguments
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true)]
    #[arg(allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            let status = error.exit_code();
            eprint!("{}", usage_text(error, Options::command()));
            std::process::exit(status);
        }
        Err(error) => error.exit(),
    };
    let program = BackendProgram::new(&options.command, &options.socket_path);
    match program.and_then(BackendProgram::accept) {
        Ok(()) => ExitCode::SUCCESS,
        // The connection is closed by then, which tells the front-end.
        Err(error) => {
            eprintln!("{NAME}: {}", printable(&error.to_string()));
            match error {
                Error::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn manual_page_matches_the_command_line() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-user-accept.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
