//! vhost-user-input: an input device of the host, or one without hardware, for a virtual machine, as a host process.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Parser, ValueEnum};
use conventions::EVDEV_PATH;
use vhost_user_backends::backend::{
    self, Capabilities, CommonOptions, DeviceType, ListenerOptions, Program, SandboxSwitch,
};
use vhost_user_backends::input::{
    EVENTS_SOCKET, EvdevOpenError, EvdevOptions, EvdevSource, EventSource, InputBuilder,
    VirtualDevice, VirtualSource,
};

/// A keyboard, mouse, tablet or touch screen for a virtual machine, over vhost-user
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
        required_unless_present = "virtual_device",
        // One that may be empty, as it is in the unit where EVDEV_PATH= is not set: see `open`.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    evdev_path: Option<PathBuf>,

    /// Leave the device to the host's other programs too, while a guest runs
    #[arg(long, help_heading = "Input options")]
    no_grab: bool,

    /// Wait for a device that is not there; FILE, which each start that finds it writes, tells the guest what it is
    #[arg(long, value_name = "FILE", help_heading = "Input options")]
    wait: Option<PathBuf>,

    /// Serve a device without hardware, with events from the events socket; instead of --evdev-path
    #[arg(
        id = "virtual_device",
        long = "virtual",
        value_name = "DEVICE",
        help_heading = "Input options",
        conflicts_with = "no_grab"
    )]
    virtual_device: Option<VirtualOption>,

    /// With --virtual, listen for programs that send events, such as vhost-vnc, on a Unix socket made at PATH
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Input options",
        requires = "virtual_device",
        conflicts_with = "events_fd"
    )]
    events_socket: Option<PathBuf>,

    /// As --events-socket, on the open Unix stream socket FDNUM, which listens
    #[arg(
        long,
        value_name = "FDNUM",
        help_heading = "Input options",
        requires = "virtual_device",
        value_parser = clap::value_parser!(RawFd).range(0..)
    )]
    events_fd: Option<RawFd>,
}

/// The value of `--virtual`.
#[derive(ValueEnum, Clone, Copy)]
enum VirtualOption {
    /// A keyboard with all keys of a PC and of media keyboards, and LEDs
    Keyboard,
    /// An absolute pointer with five buttons and two wheels
    Tablet,
}

impl From<VirtualOption> for VirtualDevice {
    fn from(option: VirtualOption) -> Self {
        match option {
            VirtualOption::Keyboard => Self::Keyboard,
            VirtualOption::Tablet => Self::Tablet,
        }
    }
}

/// Why there is no input device.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "no input device is configured: --evdev-path is empty, and there is no --virtual. For the systemd unit, \
         set {EVDEV_PATH}= and DeviceAllow= in a drop-in, as 'vhostctl add input' does"
    )]
    NotConfigured,
    #[error("--virtual is a device without hardware: it cannot serve --evdev-path={} as well", .0.display())]
    TwoDevices(PathBuf),
    #[error(transparent)]
    Open(#[from] EvdevOpenError),
    #[error("cannot set up the virtual device: {0}")]
    Virtual(#[source] io::Error),
}

struct VhostUserInput;

impl Program for VhostUserInput {
    type Options = Options;
    type Builder = InputBuilder<Box<dyn EventSource>>;
    type Error = Error;

    const NAME: &'static str = "vhost-user-input";
    const LISTENERS: &'static [&'static str] = &[EVENTS_SOCKET];

    fn capabilities() -> Capabilities {
        Capabilities::new(DeviceType::Input, &["evdev-path", "no-grab"])
    }

    fn common(options: &Options) -> &CommonOptions {
        &options.common
    }

    fn listeners(options: &Options) -> Vec<ListenerOptions> {
        let events = ListenerOptions {
            name: EVENTS_SOCKET,
            path: options.events_socket.clone(),
            fd: options.events_fd,
            required: true,
        };
        let device = options.virtual_device;
        device.map(|_| events).into_iter().collect()
    }

    fn open(options: &Options) -> Result<Self::Builder, Error> {
        let path = options.evdev_path.as_ref();
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let source: Box<dyn EventSource> = match (options.virtual_device, path) {
            (Some(_), Some(path)) => return Err(Error::TwoDevices(path.clone())),
            (None, None) => return Err(Error::NotConfigured),
            (Some(device), None) => {
                Box::new(VirtualSource::new(device.into()).map_err(Error::Virtual)?)
            }
            (None, Some(path)) => Box::new(EvdevSource::open(EvdevOptions {
                path: path.clone(),
                grab: !options.no_grab,
                description: options.wait.clone(),
                sandboxed: options.common.general.sandbox == SandboxSwitch::On,
            })?),
        };
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
