// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl monitor`: devices and units, as they change.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::backends::WatchedTypes;
use crate::devices::{self, Action, DeviceEvent, DeviceWatch, Devices, HostDevice};
use crate::exit;
use crate::output::{Emphasis, Output};
use crate::systemd::{self, BackendState, Change, Manager, Target, UnitWatch};

use super::error::{Error, MonitorError};

/// Show live which devices come and go and which units change
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs until it is interrupted or its output is closed. With -j, every event is a JSON object on a line of its own.")]
pub(crate) struct Args {
    /// Show devices only
    #[arg(short, long, conflicts_with = "units")]
    devices: bool,

    /// Show units only
    #[arg(short, long)]
    units: bool,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Device(DeviceEvent),
    Unit(UnitEvent),
}

/// A change of a unit, with the names by which `list` has its backend.
#[derive(Debug, Serialize)]
struct UnitEvent {
    unit: String,
    vm: String,
    name: String,
    #[serde(rename = "type")]
    device_type: String,
    active_state: String,
    sub_state: String,
    state: BackendState,
}

impl UnitEvent {
    fn new(change: Change, types: &mut WatchedTypes) -> Self {
        let instance = &change.instance;
        Self {
            unit: instance.unit(change.unit_type),
            vm: instance.vm().to_owned(),
            name: instance.label().to_owned(),
            device_type: types.of(instance, change.state),
            active_state: change.active_state,
            sub_state: change.sub_state,
            state: change.state,
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    time: Timestamp,
    #[serde(flatten)]
    event: Event,
}

/// What the threads send to the one that writes.
enum Message {
    Event(Event),
    Failed(Error),
    End,
}

/// How long a blocked output may delay the exit.
const GRACE: Duration = Duration::from_millis(500);

impl Args {
    /// Whether it shows nothing but devices.
    pub(super) fn is_of_devices(&self) -> bool {
        self.devices
    }
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let (sender, messages) = channel();
    // First, so that a signal exits cleanly from the start.
    watch_for_end(sender.clone())?;
    let mut what = Vec::new();
    if !args.units && target.is_local() {
        watch_devices(sender.clone())?;
        what.push("devices");
    }
    if !args.devices {
        watch_units(target, sender)?;
        what.push("units");
    }
    output.hint(&format!("Watching {}.", what.join(" and ")));
    for messages in messages {
        match messages {
            Message::Event(event) => {
                if !show(event, output)? {
                    break;
                }
            }
            Message::Failed(error) => return Err(error),
            Message::End => break,
        }
    }
    Ok(())
}

/// Shows an event; false if the reader is gone.
fn show(event: Event, output: &Output) -> io::Result<bool> {
    if output.is_json() {
        let time = Timestamp::now();
        return output.json_event(&Line { time, event });
    }
    let now = Zoned::now().strftime("%H:%M:%S%.3f").to_string();
    let (word, emphasis, subject, text) = match event {
        Event::Device(DeviceEvent { action, device }) => {
            let emphasis = match action {
                Action::Added => Emphasis::Good,
                Action::Removed => Emphasis::Faint,
                Action::Changed => Emphasis::None,
            };
            let (node, text) = describe(&device);
            (action.to_string(), emphasis, node, text)
        }
        Event::Unit(change) => {
            let emphasis = match change.active_state.as_str() {
                "active" => Emphasis::Good,
                "failed" => Emphasis::Bad,
                "inactive" => Emphasis::Faint,
                _ => Emphasis::None,
            };
            (change.active_state, emphasis, change.unit, change.sub_state)
        }
    };
    output.line(&[
        output.plain(format_args!("{now} ")),
        output.paint(format_args!("{word:<12}"), emphasis),
        output.plain(format_args!(" {subject:<35} {text}")),
    ])
}

/// The node of a device, and a description in one line.
fn describe(device: &HostDevice) -> (String, String) {
    match device {
        HostDevice::Gpu(gpu) => {
            let words = [&gpu.driver, &gpu.vendor, &gpu.model];
            let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
            let text = if words.is_empty() {
                "gpu".to_owned()
            } else {
                format!("gpu, {}", words.join(" "))
            };
            (gpu.node.clone(), text)
        }
        HostDevice::Input(input) => {
            let kinds: Vec<_> = input.kinds.iter().map(ToString::to_string).collect();
            let name = input.name.as_deref().unwrap_or("-");
            (input.node.clone(), format!("{}, {name}", kinds.join(",")))
        }
    }
}

/// Waits in a thread for SIGINT, SIGTERM and a closed output.
fn watch_for_end(messages: Sender<Message>) -> Result<(), MonitorError> {
    let (signalled, handler) = UnixStream::pair().map_err(MonitorError::Signals)?;
    for signal in [SIGINT, SIGTERM] {
        let handler = handler.try_clone().map_err(MonitorError::Signals)?;
        signal_hook::low_level::pipe::register(signal, handler).map_err(MonitorError::Signals)?;
    }
    thread::spawn(move || {
        let stdout = rustix::stdio::stdout();
        loop {
            let mut fds = [
                PollFd::new(&signalled, PollFlags::IN),
                // HUP and ERR are always reported.
                PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
            ];
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
        let _ = messages.send(Message::End);
        // The other thread is blocked in a write.
        thread::sleep(GRACE);
        std::process::exit(exit::SUCCESS.into());
    });
    Ok(())
}

fn watch_devices(messages: Sender<Message>) -> Result<(), devices::Error> {
    let (ready, started) = channel();
    // Objects of libudev stay in the thread that created them.
    thread::spawn(move || {
        let mut watch = match DeviceWatch::start(Devices::new()) {
            Ok(watch) => watch,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        loop {
            let event = match watch.next() {
                Ok(event) => Message::Event(Event::Device(event)),
                Err(error) => Message::Failed(error.into()),
            };
            let last = matches!(event, Message::Failed(_));
            if messages.send(event).is_err() || last {
                return;
            }
        }
    });
    // The thread always sends before it ends.
    started.recv().unwrap_or(Ok(()))
}

fn watch_units(target: &Target, messages: Sender<Message>) -> Result<(), systemd::Error> {
    let mut watch =
        zbus::block_on(async { UnitWatch::start(Manager::connect(target).await?).await })?;
    let mut types = WatchedTypes::new(target.is_local(), watch.instances());
    thread::spawn(move || {
        loop {
            let event = match zbus::block_on(watch.next()) {
                Ok(Some(change)) => Message::Event(Event::Unit(UnitEvent::new(change, &mut types))),
                Ok(None) => Message::Failed(MonitorError::BusGone.into()),
                Err(error) => Message::Failed(error.into()),
            };
            let last = matches!(event, Message::Failed(_));
            if messages.send(event).is_err() || last {
                return;
            }
        }
    });
    Ok(())
}
