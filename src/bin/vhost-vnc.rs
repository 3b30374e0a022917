// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-vnc: the console of a virtual machine, for VNC viewers.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use log::LevelFilter;
use vhost_user_backends::backend::{SandboxMode, log_level_parser, refuse_unparsed, usage_text};
use vhost_user_backends::vnc;

const NAME: &str = "vhost-vnc";

/// Show the screen of a virtual machine to VNC viewers, and give it what they type and point at
///
/// It takes the screen from a vhost-user-gpu, and serves RFB (VNC) on Unix sockets. Whoever may connect to such a socket
/// may look and type: there is no password.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Options {
    /// Listen for viewers on a Unix socket made at PATH, which is removed at the end; given several times, each is for
    /// one head of the GPU, from head 0 on
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    #[arg(
        help_heading = "Viewers (sockets passed by socket activation are for head 0, 1, ... in their order)"
    )]
    socket_path: Vec<PathBuf>,

    /// Listen for viewers of head 0 on the listening Unix stream socket FDNUM
    #[arg(long, value_name = "FDNUM", value_parser = clap::value_parser!(RawFd).range(0..))]
    #[arg(
        help_heading = "Viewers (sockets passed by socket activation are for head 0, 1, ... in their order)"
    )]
    fd: Option<RawFd>,

    /// Show the screen of the vhost-user-gpu that listens for displays at PATH (its --display-socket)
    #[arg(long, value_name = "PATH", help_heading = "Virtual machine")]
    display: PathBuf,

    /// Type on the keyboard of the vhost-user-input --virtual=keyboard that listens at PATH (its --events-socket)
    #[arg(long, value_name = "PATH", help_heading = "Virtual machine")]
    keyboard: Option<PathBuf>,

    /// Point with the tablet of the vhost-user-input --virtual=tablet that listens at PATH (its --events-socket)
    #[arg(long, value_name = "PATH", help_heading = "Virtual machine")]
    tablet: Option<PathBuf>,

    /// The guest's keyboard layout, for viewers that say what was typed but not on which key: LAYOUT or LAYOUT(VARIANT),
    /// such as de or de(nodeadkeys)
    #[arg(
        long,
        value_name = "LAYOUT",
        default_value = "us",
        help_heading = "Virtual machine"
    )]
    keyboard_layout: String,

    /// What viewers call the virtual machine
    #[arg(
        long,
        value_name = "NAME",
        default_value = "VM",
        help_heading = "Virtual machine"
    )]
    name: String,

    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    #[arg(value_parser = log_level_parser(), help_heading = "General options")]
    log_level: LevelFilter,

    /// Drop unneeded file access, system calls and privileges before serving; "log" has the kernel log the system calls that
    /// would end the program
    #[arg(
        long,
        value_name = "on|log|off",
        default_value = "on",
        hide_possible_values = true
    )]
    #[arg(help_heading = "General options")]
    sandbox: SandboxMode,
}

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let status = error.exit_code();
        eprint!("{}", usage_text(error, Options::command()));
        refuse_unparsed(&["fd".to_owned()]);
        std::process::exit(status);
    });
    vnc::run(&vnc::Options {
        socket_paths: options.socket_path,
        fd: options.fd,
        display: options.display,
        keyboard: options.keyboard,
        tablet: options.tablet,
        keyboard_layout: options.keyboard_layout,
        name: options.name,
        log_level: options.log_level,
        sandbox: options.sandbox,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn manual_page_matches_the_command_line() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-vnc.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
