// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-input: an input device of the host, or one without hardware, for a virtual machine, as a host process.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Parser, ValueEnum};
use conventions::{EVDEV_PATH, InputIds, InputMatch};
use vhost_user_backends::backend::{
    self, Capabilities, CommonOptions, Continuity, DeviceType, ListenerOptions, Program, Takeover,
};
use vhost_user_backends::input::{
    EVENTS_SOCKET, EvdevAddress, EvdevOpenError, EvdevOptions, EvdevSource, EventSource,
    GrabControl, GrabControlError, GrabOptions, GrabToggle, InputBuilder, VirtualDevice,
    VirtualSource,
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
        required_unless_present_any = ["virtual_device", "evdev_match"],
        // One that may be empty, as it is in the unit where EVDEV_PATH= is not set: see `open`.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    evdev_path: Option<PathBuf>,

    /// Serve the evdev device with these numbers, as lsusb prints them, and serial number; instead of --evdev-path
    #[arg(
        long,
        value_name = "VENDOR:PRODUCT[:SERIAL]",
        help_heading = "Input options",
        conflicts_with = "virtual_device"
    )]
    evdev_match: Option<InputIds>,

    /// With --evdev-match, of several nodes that match, the one with this name
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Input options",
        requires = "evdev_match"
    )]
    evdev_name: Option<String>,

    /// With --evdev-match, of several nodes that match, the one whose Phys= in /proc/bus/input/devices ends so, such as input1
    #[arg(
        long,
        value_name = "inputN",
        help_heading = "Input options",
        requires = "evdev_match"
    )]
    evdev_interface: Option<String>,

    /// Leave the device to the host's other programs too, while a guest runs
    #[arg(long, help_heading = "Input options")]
    no_grab: bool,

    /// Let the keys CHORD take the device from the guest and give it again, as QEMU's grab-toggle= and libvirt's
    /// grabToggle= do
    #[arg(
        long,
        value_name = "CHORD",
        help_heading = "Input options",
        conflicts_with = "no_grab",
        conflicts_with = "virtual_device"
    )]
    grab_toggle: Option<GrabToggle>,

    /// Change hands together with all devices that name the same FILE, which exists while they are released
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Input options",
        conflicts_with = "virtual_device"
    )]
    grab_group: Option<PathBuf>,

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
        "no input device is configured: --evdev-path is empty, and there is no --evdev-match and no --virtual. For the systemd unit, \
         set {EVDEV_PATH}= and DeviceAllow= in a drop-in, as 'vhostctl add input' does"
    )]
    NotConfigured,
    #[error("--virtual is a device without hardware: it cannot serve --evdev-path={} as well", .0.display())]
    TwoDevices(PathBuf),
    #[error("one device is served: either --evdev-path={} or --evdev-match={ids}", path.display())]
    PathAndMatch { path: PathBuf, ids: InputIds },
    #[error(transparent)]
    Open(#[from] EvdevOpenError),
    #[error("cannot set up the virtual device: {0}")]
    Virtual(#[source] io::Error),
    #[error(transparent)]
    Control(#[from] GrabControlError),
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

    fn takeover(_options: &Options) -> Takeover {
        Takeover::Supported
    }

    fn open(options: &Options, continuity: &Continuity) -> Result<Self::Builder, Error> {
        let path = options.evdev_path.as_ref();
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let rule = options.evdev_match.as_ref().map(|ids| InputMatch {
            ids: ids.clone(),
            name: options.evdev_name.clone(),
            interface: options.evdev_interface.clone(),
        });
        let address = match (path, rule) {
            (Some(path), Some(InputMatch { ids, .. })) => {
                let path = path.clone();
                return Err(Error::PathAndMatch { path, ids });
            }
            (Some(path), None) => Some(EvdevAddress::Path(path.clone())),
            (None, rule) => rule.map(|rule| EvdevAddress::Match(rule.into())),
        };
        let sandbox = options.common.general.sandbox;
        match (options.virtual_device, address) {
            (Some(_), Some(EvdevAddress::Path(path))) => Err(Error::TwoDevices(path)),
            // The command line does not allow both.
            (None, None) | (Some(_), Some(EvdevAddress::Match(_))) => Err(Error::NotConfigured),
            (Some(device), None) => {
                let source = VirtualSource::new(device.into()).map_err(Error::Virtual)?;
                Ok(InputBuilder::new(Box::new(source) as Box<dyn EventSource>))
            }
            (None, Some(address)) => {
                let source = EvdevSource::open(
                    EvdevOptions {
                        address,
                        grab: !options.no_grab,
                        description: options.wait.clone(),
                        sandbox,
                    },
                    continuity,
                )?;
                // After the source, which has a helper of its own.
                let grab = GrabOptions {
                    toggle: options.grab_toggle,
                    group: options.grab_group.clone(),
                    sandbox,
                };
                let control = GrabControl::new(&grab, continuity)?;
                Ok(InputBuilder::new(Box::new(source) as Box<dyn EventSource>)
                    .with_grab_control(control))
            }
        }
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
