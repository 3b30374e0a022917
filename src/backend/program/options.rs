// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Command-line options that all programs share.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

use crate::backend::sandbox::SandboxMode;

/// Values of `--log-level`. There is no "off": the reason for a failure is always logged.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Parses the value of `--log-level`.
pub fn log_level_parser() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(LOG_LEVELS).try_map(|level| level.parse())
}

/// Where the front-end connects (QEMU's "Backend program conventions", "Command line options").
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection (exactly one, or a socket passed by socket activation)")]
pub struct ConnectionOptions {
    /// Listen on a Unix socket made at PATH; it is removed at the end
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    pub socket_path: Option<PathBuf>,

    /// Serve on the open Unix stream socket FDNUM: listening or already connected
    #[arg(long, value_name = "FDNUM", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub fd: Option<RawFd>,
}

/// Options of every program that do not depend on its device.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "General options")]
pub struct GeneralOptions {
    /// Print what this program can do as JSON and exit; all else on the command line is ignored
    #[arg(long)]
    pub print_capabilities: bool,

    /// How much to log
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        ignore_case = true,
        value_parser = log_level_parser()
    )]
    pub log_level: LevelFilter,

    /// Drop unneeded file access, system calls and privileges before serving; "log" has the kernel log the system calls that
    /// would end the program
    #[arg(
        long,
        value_name = "on|log|off",
        default_value = "on",
        hide_possible_values = true
    )]
    pub sandbox: SandboxMode,
}

/// The options that [`run`](super::run) needs; a program flattens them into its own.
#[derive(Args, Debug, Clone)]
pub struct CommonOptions {
    /// Where the front-end connects.
    #[command(flatten)]
    pub connection: ConnectionOptions,

    /// Options that do not depend on the device.
    #[command(flatten)]
    pub general: GeneralOptions,
}

/// Whether the command line has `--print-capabilities`; everything else on it is ignored then.
pub(super) fn wants_capabilities<I>(arguments: I) -> bool
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    arguments
        .into_iter()
        .skip(1)
        .any(|argument| argument.as_ref() == "--print-capabilities")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Options {
        #[command(flatten)]
        common: CommonOptions,
    }

    fn log_level(level: &str) -> Result<LevelFilter, String> {
        Options::try_parse_from(["x", "--log-level", level])
            .map(|options| options.common.general.log_level)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_log_level_shows_errors() {
        for level in LOG_LEVELS {
            assert!(log_level(level).unwrap() >= LevelFilter::Error, "{level}");
        }
        assert_eq!(log_level("Debug"), Ok(LevelFilter::Debug));
        for other in ["off", "loud"] {
            let error = log_level(other).unwrap_err();
            assert!(
                LOG_LEVELS.iter().all(|level| error.contains(level)),
                "{error}"
            );
        }
    }

    #[test]
    fn print_capabilities_precedes_everything_else() {
        let asked = [
            "x",
            "--no-such-option",
            "stray",
            "--print-capabilities",
            "--fd=999",
        ];
        assert!(wants_capabilities(asked));
        assert!(wants_capabilities(["x", "--fd", "--print-capabilities"]));
    }

    #[test]
    fn program_name_and_similar_options_do_not_print_capabilities() {
        assert!(!wants_capabilities(["--print-capabilities"]));
        assert!(!wants_capabilities(["x", "--print-capabilities-now"]));
        assert!(!wants_capabilities(["x"]));
    }
}
