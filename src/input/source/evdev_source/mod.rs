// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An evdev device of the host as the source.

mod address;
mod description;
mod error;
pub(crate) mod event_reader;
mod find;
pub(crate) mod grab;
mod kept_device;
mod names;
mod open_device;
mod open_file;
mod opener;
mod port;
mod read_info;
mod sandbox_policy;
mod sysfs;

pub use address::EvdevAddress;
pub use error::EvdevOpenError;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use evdev::InputEvent;
use rustix::io::Errno;

use crate::backend::continuity::{Continuity, MAX_EVENTS, Owner};
use crate::backend::{HelperError, RateLimitedLog, SandboxMode, SandboxPolicy};
use crate::input::device_info::{self, DeviceInfo, Difference};
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, EV_ABS, EV_KEY, EV_LED, EV_SW, EV_SYN, is_contact_axis,
};
use crate::input::protocol::{Bitmap, Event};
use crate::input::records;
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

use error::cannot_open;
use event_reader::EventReader;
use find::Found;
use kept_device::KeptDevice;
use open_device::OpenDevice;
use open_file::open_file;
use opener::{Answer, Opener, Place};
use port::Port;
use read_info::bitmap;
use sysfs::InputFolders;

/// Events that the crate `evdev` has room for in a read, or more.
const READ_CAPACITY: usize = 32;

/// Which evdev device to open, and how.
#[derive(Clone, Debug)]
pub struct EvdevOptions {
    /// The device.
    pub address: EvdevAddress,
    /// Whether to grab the device while a guest has it (`EVIOCGRAB`), so that other programs of the
    /// host do not see its events.
    pub grab: bool,
    /// The sandbox of the process that opens the device again when it comes back.
    pub sandbox: SandboxMode,
    /// Where it is kept what the device is: one that is not there is then waited for, if the file says what it was.
    pub description: Option<PathBuf>,
}

/// An evdev device of the host.
#[derive(Debug)]
pub struct EvdevSource {
    /// The device, unless it is gone.
    device: Option<OpenDevice>,
    /// What the guest is told.
    info: DeviceInfo,
    options: EvdevOptions,
    /// `None` if it cannot be noticed when the device comes back.
    opener: Option<Opener>,
    /// `None` if nothing is kept for a successor.
    reader: Option<EventReader>,
    kept: KeptDevice,
    /// Where the device was plugged in last.
    port: Port,
    log: RateLimitedLog,
}

impl EvdevSource {
    /// Opens an evdev device and reads what it is. With [`EvdevOptions::description`] one that is not there is waited
    /// for. If a predecessor of this process left the device in `continuity`, that one is taken instead.
    ///
    /// # Errors
    /// If there is no such device, several match, it is not an evdev device, the user has no permission, or it is to
    /// be grabbed and another process has done so; if a predecessor served another device.
    pub fn open(options: EvdevOptions, continuity: &Continuity) -> Result<Self, EvdevOpenError> {
        let ledger = continuity.ledger(Owner::Device);
        let reader = EventReader::load(continuity)?;
        let mut kept = KeptDevice::new(continuity);
        if let Some(told) = device_info::kept::load(&ledger)? {
            return Self::go_on(options, told, kept, reader);
        }
        let address = &options.address;
        let file = options.description.as_ref();
        let described = file.map(|file| (file, description::load(file, address)));
        let before = described
            .as_ref()
            .and_then(|(_, described)| described.as_ref().ok()?.as_ref());
        let Found { node, target } = find::find(address, before, InputFolders::of_host())?;
        let port = before.map(|seen| seen.port.clone()).unwrap_or_default();
        let absent = match (&node, described) {
            (Some(_), _) => None,
            (None, None) => return Err(EvdevOpenError::Missing(address.clone())),
            (None, Some((file, described))) => {
                let described = described.map_err(|error| EvdevOpenError::Description {
                    address: address.clone(),
                    file: file.clone(),
                    error: error.to_string(),
                })?;
                let seen = described.ok_or_else(|| EvdevOpenError::NeverSeen(address.clone()))?;
                Some(seen.info)
            }
        };
        // Before the device, so that it notices whatever comes up beside it from now on.
        let opener = Opener::start(target, Place::Target, options.sandbox);
        if let Some(info) = absent {
            let opener = Some(opener?);
            opener.iter().for_each(Opener::lost);
            kept.set(None, address, options.grab);
            return Ok(Self {
                device: None,
                info,
                options,
                opener,
                reader,
                kept,
                port,
                log: RateLimitedLog::default(),
            });
        }
        let file =
            open_file(&node.unwrap_or_default()).map_err(|error| cannot_open(address, error))?;
        let (device, info) = match &options.description {
            // It is waited for, as one that is not there.
            Some(_) => OpenDevice::read(file.into(), address)?,
            None => OpenDevice::new(file.into(), &options)?,
        };
        find::check(address, &info)?;
        if port.may_be_anothers(&device.port, &info.serial) {
            log::warn!("{}", address.moved(&port, &device.port));
        }
        let opener = opener.inspect_err(|error| warn_unnoticed(address, error));
        if let Some(file) = &options.description {
            let saved = description::save(file, address, &info, &device.port);
            saved.unwrap_or_else(|error| {
                log::warn!(
                    "the next start cannot wait for {address}: cannot write {}: {error}",
                    file.display()
                );
            });
        }
        if !device.writable {
            log::warn!("{address} cannot be written: its LEDs will not follow the guest");
        }
        kept.set(Some(device.device.as_fd()), address, options.grab);
        Ok(Self {
            port: device.port.clone(),
            log: RateLimitedLog::default(),
            device: Some(device),
            info,
            options,
            opener: opener.ok(),
            reader,
            kept,
        })
    }

    /// Takes the device that a predecessor left, of which the guest was told `info`.
    fn go_on(
        options: EvdevOptions,
        info: DeviceInfo,
        mut kept: KeptDevice,
        reader: Option<EventReader>,
    ) -> Result<Self, EvdevOpenError> {
        let address = &options.address;
        // A guest may have taken the predecessor over, and forged what it left: the options say which device is meant.
        let is_meant = |info: &DeviceInfo| find::check(address, info).is_ok();
        if !is_meant(&info) {
            return Err(records::RecordError::Device.into());
        }
        let left = kept.take_left(address, options.grab)?;
        let place = Place::left(left.node());
        let (device, left) = OpenDevice::left(left, &options, &info).unzip();
        if !left.as_ref().is_none_or(is_meant) {
            return Err(records::RecordError::Device.into());
        }
        let description = options.description.as_deref();
        let folders = InputFolders::of_host();
        let target = find::target_of_left(address, description, left.as_ref(), folders);
        let seen = description.and_then(|file| description::load(file, address).ok().flatten());
        let port = match (&device, seen) {
            (Some(device), _) => device.port.clone(),
            (None, seen) => seen.map(|seen| seen.port).unwrap_or_default(),
        };
        let opener = Opener::start(target, place, options.sandbox);
        let opener = match &device {
            Some(_) => opener
                .inspect_err(|error| warn_unnoticed(address, error))
                .ok(),
            None => {
                // It is gone, or could not be kept, and is found again. What is left of one that is gone stays kept.
                let opener = opener?;
                opener.lost();
                Some(opener)
            }
        };
        Ok(Self {
            device,
            info,
            options,
            opener,
            reader,
            kept,
            port,
            log: RateLimitedLog::default(),
        })
    }

    /// Takes the device `file` for the one that is gone, if it can take its place. `is_wanted`: a guest is to get it at
    /// once. Otherwise another process may have grabbed it, perhaps for another VM, and is not disturbed. `settled`:
    /// nothing that comes later says that another one is meant.
    fn take_device(
        &mut self,
        file: OwnedFd,
        is_wanted: bool,
        settled: bool,
    ) -> Result<(), Refusal> {
        let (mut device, info) = match is_wanted {
            true => OpenDevice::new(file, &self.options)?,
            false => OpenDevice::read(file, &self.options.address)?,
        };
        if let Some(difference) = self.info.difference(&info) {
            return Err(Refusal::Different(difference));
        }
        if self.port.may_be_anothers(&device.port, &info.serial) {
            // The one that was there may be about to come back, too.
            if !settled {
                return Err(Refusal::Elsewhere);
            }
            let moved = self.options.address.moved(&self.port, &device.port);
            self.log.warn(format_args!("{moved}"));
        }
        self.port = device.port.clone();
        device.exceeds_info = self.info.is_exceeded_by(&info);
        let file = Some(device.device.as_fd());
        self.kept
            .set(file, &self.options.address, self.options.grab);
        self.device = Some(device);
        Ok(())
    }

    /// Reads events, whatever the guest was told of.
    fn read_new(&mut self) -> io::Result<(Vec<Event>, ReadOutcome)> {
        let left = self.reader.as_mut().map(EventReader::left);
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            return Ok((left, ReadOutcome::MaybeMore));
        }
        let open = self.device.as_mut().ok_or(Errno::NODEV)?;
        let (events, capacity) = match &mut self.reader {
            Some(reader) => (reader.read(&open.device)?, MAX_EVENTS),
            None => {
                let read = open.device.fetch_events()?;
                let event = |event: InputEvent| {
                    Event::new(event.event_type().0, event.code(), event.value())
                };
                (read.map(event).collect(), READ_CAPACITY)
            }
        };
        match events.len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count if count >= capacity => Ok((events, ReadOutcome::MaybeMore)),
            _ => Ok((events, ReadOutcome::Drained)),
        }
    }

    fn device(&self) -> io::Result<&OpenDevice> {
        self.device.as_ref().ok_or_else(|| Errno::NODEV.into())
    }

    fn device_mut(&mut self) -> io::Result<&mut OpenDevice> {
        self.device.as_mut().ok_or_else(|| Errno::NODEV.into())
    }
}

/// Warns that the device at `address` has no opener.
fn warn_unnoticed(address: &EvdevAddress, error: &HelperError) {
    log::warn!(
        "once {address} is unplugged, it will not be noticed when it comes back: {error}; mend that, and restart the service"
    );
}

/// Why a device that came up is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unusable(#[from] EvdevOpenError),
    #[error("{0}")]
    Different(Difference),
    #[error("it is at another port")]
    Elsewhere,
}

impl EventSource for EvdevSource {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn label(&self) -> String {
        format!("{} ({})", self.options.address.label(), self.info.name)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let device = self.device.as_ref()?;
        Some(device.device.as_fd())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        let (mut new, outcome) = self.read_new()?;
        let exceeds_info = self.device.as_ref().is_none_or(|open| open.exceeds_info);
        if exceeds_info {
            new.retain(|event| event.kind == EV_SYN || self.info.has(event.kind, event.code));
        }
        events.append(&mut new);
        Ok(outcome)
    }

    fn committed(&mut self) {
        self.kept.committed();
    }

    fn state(&self) -> io::Result<DeviceState> {
        let open = self.device()?;
        let device = &open.device;
        let mut state = DeviceState::new(self.info.slots());
        if let Some(keys) = self.info.codes(EV_KEY) {
            state.keys = bitmap(&*device.get_key_state()?, |key| key.0).and(keys);
        }
        if let Some(switches) = self.info.codes(EV_SW) {
            state.switches = bitmap(&*device.get_switch_state()?, |switch| switch.0).and(switches);
        }
        if self.info.codes(EV_ABS).is_some() {
            for (axis, info) in device.get_absinfo()? {
                match axis.0 {
                    axis if !self.info.axes.contains_key(&axis) => {}
                    ABS_MT_SLOT => state.touch.slot = usize::try_from(info.value()).ok(),
                    axis if is_contact_axis(axis) => {}
                    axis => {
                        state.axes.insert(axis, info.value());
                    }
                }
            }
            open.read_contacts(&mut state.touch, &self.info)?;
        }
        Ok(state)
    }

    fn leds(&self) -> io::Result<Bitmap> {
        if self.info.codes(EV_LED).is_none() {
            return Ok(Bitmap::default());
        }
        Ok(bitmap(&*self.device()?.device.get_led_state()?, |led| {
            led.0
        }))
    }

    fn send(&mut self, events: &[Event]) -> io::Result<()> {
        let open = self.device_mut()?;
        if !open.writable {
            return Ok(());
        }
        let events: Vec<_> = events
            .iter()
            .map(|event| InputEvent::new(event.kind, event.code, event.value))
            .collect();
        open.device.send_events(&events)
    }

    fn host_access(&self) -> HostAccess {
        if self.options.grab {
            HostAccess::UntilGrab
        } else {
            HostAccess::Shared
        }
    }

    fn grab(&mut self) -> io::Result<()> {
        self.device_mut()?.grab()?;
        self.kept.grabbed(&self.options.address);
        Ok(())
    }

    fn ungrab(&mut self) -> io::Result<()> {
        self.device_mut()?.ungrab()
    }

    fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        self.opener.as_ref().map(Opener::as_fd)
    }

    fn await_return(&mut self) {
        // What is kept of it tells a successor since when it is gone.
        self.device = None;
        self.opener.iter().for_each(Opener::lost);
    }

    fn take_return(&mut self, is_wanted: bool) -> SourceReturn {
        loop {
            let Some(opener) = &self.opener else {
                return SourceReturn::NotYet;
            };
            let (file, node, settled) = match opener.answer() {
                Ok(Answer::Opened {
                    file,
                    node,
                    settled,
                }) => (file, node, settled),
                Ok(Answer::Another { node }) => {
                    return SourceReturn::Refused(self.options.address.beside(&node));
                }
                Ok(Answer::Several { nodes }) => {
                    return SourceReturn::Refused(self.options.address.several(&nodes));
                }
                Ok(Answer::Failed(error)) => {
                    let error = cannot_open(&self.options.address, error);
                    return SourceReturn::Refused(error.to_string());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return SourceReturn::NotYet;
                }
                Err(error) => {
                    return SourceReturn::Never(format!(
                        "the process that opens it again has ended: {error}"
                    ));
                }
            };
            let taken = self.take_device(file, is_wanted, settled);
            self.opener.iter().for_each(|opener| match &taken {
                Ok(()) => opener.accepted(),
                Err(Refusal::Unusable(EvdevOpenError::Grabbed(_))) => opener.busy(),
                Err(_) => opener.refused(),
            });
            match taken {
                Ok(()) => return SourceReturn::Back,
                Err(refusal) if settled => {
                    let node = node.to_string_lossy();
                    return SourceReturn::Refused(format!("{node} is refused: {refusal}"));
                }
                Err(_) => {}
            }
        }
    }

    fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy()
    }
}

#[cfg(test)]
mod tests;
