//! vhost-user-input: an input device of the host for a virtual machine, as a host process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use conventions::EVDEV_PATH;
use vhost_user_backends::backend::{self, Capabilities, CommonOptions, DeviceType, Program};
use vhost_user_backends::input::{EvdevOpenError, EvdevOptions, EvdevSource, InputBuilder};

/// A keyboard, mouse, tablet or touch screen of the host for a virtual machine, over vhost-user
///
/// QEMU: -chardev socket,id=kbd,path=PATH -device vhost-user-input-pci,chardev=kbd
#[derive(Parser)]
#[command(name = VhostUserInput::NAME, version)]
struct Options {
    #[command(flatten)]
    common: CommonOptions,

    /// Serve the evdev device PATH, such as /dev/input/by-id/...-event-kbd
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Input options",
        // One that may be empty, as it is in the unit where EVDEV_PATH= is not set: see `open`.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    evdev_path: PathBuf,

    /// Leave the device to the host's other programs too, while a guest runs
    #[arg(long, help_heading = "Input options")]
    no_grab: bool,
}

/// Why there is no input device.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "no input device is configured: --evdev-path is empty. For the systemd unit, set \
         {EVDEV_PATH}= and DeviceAllow= in a drop-in, as 'vhostctl add input' does"
    )]
    NotConfigured,
    #[error(transparent)]
    Open(#[from] EvdevOpenError),
}

struct VhostUserInput;

impl Program for VhostUserInput {
    type Options = Options;
    type Builder = InputBuilder;
    type Error = Error;

    const NAME: &'static str = "vhost-user-input";

    fn capabilities() -> Capabilities {
        Capabilities::new(DeviceType::Input, &["evdev-path", "no-grab"])
    }

    fn common(options: &Options) -> &CommonOptions {
        &options.common
    }

    fn open(options: &Options) -> Result<InputBuilder, Error> {
        if options.evdev_path.as_os_str().is_empty() {
            return Err(Error::NotConfigured);
        }
        let source = EvdevSource::open(EvdevOptions {
            path: options.evdev_path.clone(),
            grab: !options.no_grab,
        })?;
        Ok(InputBuilder::new(source))
    }
}

fn main() -> ExitCode {
    backend::run::<VhostUserInput>()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn manual_page_matches_the_command_line() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-user-input.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
