// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that come, go and change, as it happens.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fmt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use udev::{EventType, MonitorBuilder, MonitorSocket};

use super::names::Links;
use super::{DRI, Devices, Error, HostDevice, INPUT, input};

const WHAT: &str = "news";

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Added,
    Removed,
    /// A property that is shown changed.
    Changed,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        })
    }
}

/// A device that came, went or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceEvent {
    pub action: Action,
    pub device: HostDevice,
}

/// The changes from now on.
pub(crate) struct DeviceWatch {
    devices: Devices,
    socket: MonitorSocket,
    /// The known devices, by their paths in /sys: the event of a removed device has no properties.
    known: BTreeMap<OsString, HostDevice>,
    /// Events that came together, and the links at that time. Reading all links for each event would take longer than
    /// the time between events at boot, and the socket has room for few events.
    events: VecDeque<udev::Event>,
    links: Option<[Links; 2]>,
}

impl DeviceWatch {
    /// Begins to watch.
    pub(crate) fn start(devices: Devices) -> Result<Self, Error> {
        let udev = |source| Error::Udev { what: WHAT, source };
        // Before the devices are listed, so that none is missed in between.
        let socket = MonitorBuilder::new()
            .and_then(|builder| builder.match_subsystem("input"))
            .and_then(|builder| builder.match_subsystem("drm"))
            .and_then(MonitorBuilder::listen)
            .map_err(udev)?;
        let (gpus, inputs) = nodes()?;
        let links = [Links::of(&gpus, DRI), Links::of(&inputs, INPUT)];
        let known = gpus
            .into_iter()
            .chain(inputs)
            .filter_map(|node| Some((node.syspath().into(), device(&devices, &node, &links)?)))
            .collect();
        Ok(Self {
            devices,
            socket,
            known,
            events: VecDeque::new(),
            links: None,
        })
    }

    /// Waits for the next change.
    pub(crate) fn next(&mut self) -> Result<DeviceEvent, Error> {
        loop {
            // Events that say nothing new follow on each other.
            while let Some(event) = self.events.pop_front() {
                let change = self.apply(&event);
                if let Some(change) = change {
                    return Ok(change);
                }
            }
            self.links = None;
            self.events.extend(self.socket.iter());
            if !self.events.is_empty() {
                continue;
            }
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::Udev {
                        what: WHAT,
                        source: error.into(),
                    });
                }
            }
        }
    }

    fn apply(&mut self, event: &udev::Event) -> Option<DeviceEvent> {
        let place = event.syspath().to_owned().into_os_string();
        if event.event_type() == EventType::Remove {
            return Some(DeviceEvent {
                action: Action::Removed,
                device: self.known.remove(&place)?,
            });
        }
        // Most are of devices that have no node.
        event.devnode()?;
        let links = self.links.get_or_insert_with(|| {
            // Without the others' links a device is shown with all its own.
            let links = nodes();
            links.map_or_else(
                |_| Default::default(),
                |(gpus, inputs)| [Links::of(&gpus, DRI), Links::of(&inputs, INPUT)],
            )
        });
        let device = device(&self.devices, event, links)?;
        let action = match self.known.insert(place, device.clone()) {
            None => Action::Added,
            Some(old) if old != device => Action::Changed,
            Some(_) => return None,
        };
        Some(DeviceEvent { action, device })
    }
}

/// The present GPUs and input devices.
fn nodes() -> Result<(Vec<udev::Device>, Vec<udev::Device>), Error> {
    let gpus = super::scan("drm", "renderD*", "GPUs")?;
    Ok((gpus, super::scan("input", "event*", "input devices")?))
}

fn device(
    devices: &Devices,
    node: &udev::Device,
    [gpus, inputs]: &[Links; 2],
) -> Option<HostDevice> {
    let sysname = node.sysname().to_str()?;
    match node.subsystem()?.to_str()? {
        "drm" if sysname.starts_with("renderD") => devices
            .render_node(node, gpus)
            .map(Box::new)
            .map(HostDevice::Gpu),
        "input" if sysname.starts_with("event") => {
            input(node, inputs).map(Box::new).map(HostDevice::Input)
        }
        _ => None,
    }
}
