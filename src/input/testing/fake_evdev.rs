// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An evdev device whose hardware is a value.

#[cfg(test)]
mod kept;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::backend::continuity::crash;
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::{EV_KEY, EV_LED, EV_SND};
use crate::input::protocol::{Bitmap, Event};
use crate::input::source::evdev_source::grab::Grab;
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

/// Events that a read returns at most: few, so that reads end within reports.
const READ_CAPACITY: usize = 7;

/// The hardware and the host's side of a [`FakeEvdev`].
#[derive(Debug, Default)]
pub struct FakeHardware {
    /// The events that can be read.
    pub readable: VecDeque<Event>,
    /// What is pressed, switched and touched.
    pub state: DeviceState,
    /// The LEDs that are on.
    pub leds: Bitmap,
    /// The LED and sound events that the device was sent, each time with a `SYN_REPORT`.
    pub sent: Vec<Event>,
    /// Whether the device is grabbed through the [`FakeEvdev`].
    pub grabbed: bool,
    /// Whether another process has grabbed the device.
    pub grabbed_by_another: bool,
    /// Whether the hardware is gone as it is grabbed.
    pub vanishes_at_grab: bool,
    /// Whether the device's state cannot be read.
    pub unreadable: bool,
    /// Whether reading the state takes back the events of keys that can be read, as the kernel does it.
    pub state_takes_keys: bool,
    /// Whether the hardware is gone.
    pub unplugged: bool,
    /// What is found out about its return.
    pub returns: VecDeque<SourceReturn>,
    /// Whether its return is waited for.
    pub awaited: bool,
    /// Whether it was to be grabbed at once when it was asked for its return.
    pub wanted: bool,
}

/// An evdev device with [`FakeHardware`].
#[derive(Debug)]
pub struct FakeEvdev {
    hardware: Arc<Mutex<FakeHardware>>,
    info: DeviceInfo,
    host_access: HostAccess,
    grab: Grab,
    fd: OwnedFd,
    return_fd: OwnedFd,
    #[cfg(test)]
    kept: Option<kept::KeptFile>,
}

impl FakeEvdev {
    /// The device `info` on which nothing is pressed.
    ///
    /// # Errors
    /// Those of `eventfd(2)`.
    pub fn new(info: DeviceInfo, host_access: HostAccess) -> io::Result<Self> {
        let hardware = FakeHardware {
            state: DeviceState::new(info.slots()),
            ..FakeHardware::default()
        };
        Ok(Self {
            hardware: Arc::new(Mutex::new(hardware)),
            info,
            host_access,
            grab: Grab::Free,
            fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            return_fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            #[cfg(test)]
            kept: None,
        })
    }

    /// The hardware, to be changed from outside.
    pub fn hardware(&self) -> Arc<Mutex<FakeHardware>> {
        self.hardware.clone()
    }

    fn lock(&self) -> MutexGuard<'_, FakeHardware> {
        self.hardware.lock().expect("no test panics with the lock")
    }
}

/// The kernel's answer to `EVIOCGRAB`.
fn set_grab(hardware: &Mutex<FakeHardware>, grab: bool) -> io::Result<()> {
    let mut hardware = hardware.lock().expect("no test panics with the lock");
    match grab {
        true if hardware.grabbed || hardware.grabbed_by_another => return Err(Errno::BUSY.into()),
        true if hardware.vanishes_at_grab => {
            hardware.unplugged = true;
            return Err(Errno::NODEV.into());
        }
        false if !hardware.grabbed => return Err(Errno::INVAL.into()),
        _ => hardware.grabbed = grab,
    }
    Ok(())
}

impl EventSource for FakeEvdev {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn label(&self) -> String {
        format!("/dev/input/event0 ({})", self.info.name)
    }

    /// Never readable: tests say when there are events.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(test)]
        if self.kept.as_ref().is_some_and(kept::KeptFile::is_gone) {
            return None;
        }
        Some(self.fd.as_fd())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        let unplugged = self.lock().unplugged;
        #[cfg(test)]
        if let Some(kept) = self.kept.as_mut().filter(|_| !unplugged) {
            return kept.read(&self.hardware, events);
        }
        if unplugged {
            return Err(Errno::NODEV.into());
        }
        let mut hardware = self.lock();
        let count = hardware.readable.len().min(READ_CAPACITY);
        events.extend(hardware.readable.drain(..count));
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            READ_CAPACITY => Ok(ReadOutcome::MaybeMore),
            _ => Ok(ReadOutcome::Drained),
        }
    }

    fn state(&self) -> io::Result<DeviceState> {
        let mut hardware = self.lock();
        if hardware.unreadable {
            return Err(Errno::IO.into());
        }
        if hardware.state_takes_keys {
            hardware.readable.retain(|event| event.kind != EV_KEY);
        }
        Ok(hardware.state.clone())
    }

    fn leds(&self) -> io::Result<Bitmap> {
        Ok(self.lock().leds)
    }

    /// # Panics
    /// If the events are not LEDs and sounds of the device, followed by a `SYN_REPORT`.
    fn send(&mut self, events: &[Event]) -> io::Result<()> {
        crash::point();
        let mut hardware = self.lock();
        let (report, status) = events.split_last().expect("no events are sent");
        assert!(report.ends_report(), "the events do not end with a report");
        for Event { kind, code, value } in status {
            let allowed = matches!(*kind, EV_LED | EV_SND) && self.info.has(*kind, *code);
            assert!(allowed, "the device is sent {kind} {code} {value}");
            if *kind == EV_LED {
                hardware.leds.set(*code, *value != 0);
            }
        }
        hardware.sent.extend(events);
        // As in the kernel, a reader reads what it wrote.
        hardware.readable.extend(events);
        Ok(())
    }

    fn host_access(&self) -> HostAccess {
        self.host_access
    }

    fn grab(&mut self) -> io::Result<()> {
        crash::point();
        let hardware = &self.hardware;
        self.grab.begin(|grab| set_grab(hardware, grab))?;
        #[cfg(test)]
        if let Some(kept) = &mut self.kept {
            kept.set_grabs(true);
        }
        Ok(())
    }

    fn ungrab(&mut self) -> io::Result<()> {
        crash::point();
        let hardware = &self.hardware;
        self.grab.end(|grab| set_grab(hardware, grab))
    }

    /// Never readable: tests say when it may be back.
    fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.return_fd.as_fd())
    }

    fn await_return(&mut self) {
        #[cfg(test)]
        if let Some(kept) = &mut self.kept {
            kept.set_gone(true);
        }
        self.grab = Grab::Free;
        let mut hardware = self.lock();
        hardware.awaited = true;
        hardware.grabbed = false;
    }

    fn take_return(&mut self, is_wanted: bool) -> SourceReturn {
        let mut hardware = self.lock();
        hardware.wanted = is_wanted;
        let answer = hardware.returns.pop_front();
        if answer == Some(SourceReturn::Back) {
            hardware.awaited = false;
            hardware.unplugged = false;
            drop(hardware);
            #[cfg(test)]
            if let Some(kept) = &mut self.kept {
                kept.set_gone(false);
            }
        }
        answer.unwrap_or(SourceReturn::NotYet)
    }
}
