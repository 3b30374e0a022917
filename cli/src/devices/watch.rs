//! Devices that come and go, as they do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use udev::{EventType, MonitorBuilder, MonitorSocket};

use super::names::Links;
use super::{DRI, Device, Devices, Error, INPUT, input};

const WHAT: &str = "news";

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Added,
    Removed,
    /// Something of what is shown of it is different now.
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

/// The changes from now on.
pub struct Watch {
    devices: Devices,
    socket: MonitorSocket,
    /// What there is, by its place in /sys: a device that is gone tells no more of itself.
    known: BTreeMap<OsString, Device>,
}

impl Devices {
    /// Begins to watch.
    pub fn watch(self) -> Result<Watch, Error> {
        let udev = |source| Error::Udev { what: WHAT, source };
        // Before what there is is asked for, so that nothing is missed in between.
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
            .filter_map(|node| Some((node.syspath().into(), self.device(&node, &links)?)))
            .collect();
        Ok(Watch {
            devices: self,
            socket,
            known,
        })
    }

    fn device(&self, node: &udev::Device, [gpus, inputs]: &[Links; 2]) -> Option<Device> {
        let sysname = node.sysname().to_str()?;
        match node.subsystem()?.to_str()? {
            "drm" if sysname.starts_with("renderD") => {
                self.render_node(node, gpus).map(Box::new).map(Device::Gpu)
            }
            "input" if sysname.starts_with("event") => {
                input(node, inputs).map(Box::new).map(Device::Input)
            }
            _ => None,
        }
    }
}

/// The GPUs and the input devices that there are.
fn nodes() -> Result<(Vec<udev::Device>, Vec<udev::Device>), Error> {
    let gpus = super::scan("drm", "renderD*", "GPUs")?;
    Ok((gpus, super::scan("input", "event*", "input devices")?))
}

impl Watch {
    /// Waits for the next change.
    pub fn next(&mut self) -> Result<(Action, Device), Error> {
        loop {
            // Events that say nothing new follow on each other.
            while let Some(event) = self.socket.iter().next() {
                let change = self.take(&event);
                if let Some(change) = change {
                    return Ok(change);
                }
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

    fn take(&mut self, event: &udev::Event) -> Option<(Action, Device)> {
        let place = event.syspath().to_owned().into_os_string();
        if event.event_type() == EventType::Remove {
            return Some((Action::Removed, self.known.remove(&place)?));
        }
        // Without the others' links a device is shown with all its own.
        let links =
            nodes().map(|(gpus, inputs)| [Links::of(&gpus, DRI), Links::of(&inputs, INPUT)]);
        let device = self.devices.device(event, &links.unwrap_or_default())?;
        let action = match self.known.insert(place, device.clone()) {
            None => Action::Added,
            Some(old) if old != device => Action::Changed,
            Some(_) => return None,
        };
        Some((action, device))
    }
}
