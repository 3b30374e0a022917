//! The command line that all programs share.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;
use log::LevelFilter;

/// Where the front-end comes from. QEMU's "Backend program conventions", "Command line options".
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

/// What every program offers beside its device's own options.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "General options")]
pub struct GeneralOptions {
    /// Print what this program can do as JSON and exit; all else on the command line is ignored
    #[arg(long)]
    pub print_capabilities: bool,

    /// How much to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

/// The options of [`super::program::run`], around those of a device.
#[derive(Args, Debug, Clone)]
pub struct CommonOptions {
    /// Where the front-end comes from.
    #[command(flatten)]
    pub connection: ConnectionOptions,

    /// What every program offers.
    #[command(flatten)]
    pub general: GeneralOptions,
}

/// Whether `--print-capabilities` is asked for, whatever else the command line holds.
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
    use super::wants_capabilities;

    #[test]
    fn print_capabilities_wins_over_anything_else() {
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
    fn the_program_name_and_lookalikes_do_not_ask() {
        assert!(!wants_capabilities(["--print-capabilities"]));
        assert!(!wants_capabilities(["x", "--print-capabilities-now"]));
        assert!(!wants_capabilities(["x"]));
    }
}
