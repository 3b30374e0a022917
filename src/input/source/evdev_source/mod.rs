//! An evdev device of the host as the source.

mod description;
mod error;
mod names;
mod open_file;
mod opener;
mod read_info;
mod sandbox_policy;

pub use error::EvdevOpenError;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use evdev::InputEvent;
use evdev::raw_stream::RawDevice;
use rustix::fs::OFlags;
use rustix::io::Errno;
use vmm_sys_util::ioctl;

use crate::backend::SandboxPolicy;
use crate::input::device_info::{DeviceInfo, Difference, MAX_SLOTS};
use crate::input::device_state::{Contact, DeviceState, Touch};
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_LED, EV_SW, EV_SYN, is_contact_axis,
};
use crate::input::protocol::{Bitmap, Event};
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

use names::has_long_name;
use open_file::open_file;
use opener::{Answer, Opener};
use read_info::{bitmap, read_info};

/// Events that the crate `evdev` has room for in a read, or more.
const READ_CAPACITY: usize = 32;

/// Which evdev device to open, and how.
#[derive(Clone, Debug)]
pub struct EvdevOptions {
    /// The device, `/dev/input/event*` or a link to one.
    pub path: PathBuf,
    /// Whether to grab the device while a guest has it (`EVIOCGRAB`), so that other programs of the
    /// host do not see its events.
    pub grab: bool,
    /// Whether the process that opens the device again when it comes back enters a sandbox.
    pub sandboxed: bool,
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
}

/// A device that is there.
#[derive(Debug)]
struct OpenDevice {
    device: RawDevice,
    writable: bool,
    /// Whether it can report what the guest was not told of.
    exceeds_info: bool,
}

impl EvdevSource {
    /// Opens an evdev device and reads what it is. With [`EvdevOptions::description`] one that is not there is waited
    /// for.
    ///
    /// # Errors
    /// If there is no such device, it is not an evdev device, the user has no permission, or it is to
    /// be grabbed and another process has done so.
    pub fn open(options: EvdevOptions) -> Result<Self, EvdevOpenError> {
        let path = &options.path;
        let absent = match (fs::metadata(path), &options.description) {
            (Ok(_), _) => None,
            (Err(error), Some(file)) if error.kind() == io::ErrorKind::NotFound => {
                Some(described(file, path)?)
            }
            (Err(error), _) => return Err(cannot_open(path, error)),
        };
        // Before the device, so that it notices whatever comes up beside it from now on.
        let opener = Opener::start(path, options.sandboxed);
        if let Some(info) = absent {
            let opener = Some(opener?);
            opener.iter().for_each(Opener::lost);
            return Ok(Self {
                device: None,
                info,
                options,
                opener,
            });
        }
        let file = open_file(path).map_err(|error| cannot_open(path, error))?;
        let (device, info) = OpenDevice::new(file.into(), &options)?;
        let opener = opener.inspect_err(|error| {
            log::warn!(
                "once {} is unplugged, it will not be noticed when it comes back: {error}; mend that, and restart the service",
                path.display()
            );
        });
        if let Some(file) = &options.description {
            let saved = description::save(file, path, &info);
            saved.unwrap_or_else(|error| {
                log::warn!(
                    "the next start cannot wait for {}: cannot write {}: {error}",
                    path.display(),
                    file.display()
                );
            });
        }
        if !device.writable {
            log::warn!(
                "{} cannot be written: its LEDs will not follow the guest",
                path.display()
            );
        }
        Ok(Self {
            device: Some(device),
            info,
            options,
            opener: opener.ok(),
        })
    }

    /// Takes the device `file` for the one that is gone, if it can take its place.
    fn take_device(&mut self, file: OwnedFd) -> Result<(), Refusal> {
        let (mut device, info) = OpenDevice::new(file, &self.options)?;
        if let Some(difference) = self.info.difference(&info) {
            return Err(Refusal::Different(difference));
        }
        device.exceeds_info = self.info.is_exceeded_by(&info);
        self.device = Some(device);
        Ok(())
    }

    fn device(&self) -> io::Result<&OpenDevice> {
        self.device.as_ref().ok_or_else(|| Errno::NODEV.into())
    }

    fn device_mut(&mut self) -> io::Result<&mut OpenDevice> {
        self.device.as_mut().ok_or_else(|| Errno::NODEV.into())
    }
}

/// Why a device that came up is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unusable(#[from] EvdevOpenError),
    #[error("{0}")]
    Different(Difference),
}

impl OpenDevice {
    /// The device of an open file, and what it is. Fails now if a guest could not get it later.
    fn new(file: OwnedFd, options: &EvdevOptions) -> Result<(Self, DeviceInfo), EvdevOpenError> {
        let path = &options.path;
        let not_evdev = |error| EvdevOpenError::NotEvdev {
            path: path.clone(),
            error,
        };
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|error| not_evdev(error.into()))?;
        // The crate panics.
        if has_long_name(&file) {
            return Err(EvdevOpenError::LongName(path.clone()));
        }
        let mut device = RawDevice::from_fd(file).map_err(not_evdev)?;
        let info = read_info(&device).map_err(not_evdev)?;
        if options.grab {
            let grabbed = device.grab().and_then(|()| device.ungrab());
            grabbed.map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => EvdevOpenError::Grabbed(path.clone()),
                _ => EvdevOpenError::Io {
                    path: path.clone(),
                    error,
                },
            })?;
        }
        let device = Self {
            device,
            writable: flags.contains(OFlags::RDWR),
            exceeds_info: false,
        };
        Ok((device, info))
    }

    /// Reads the contacts in the slots of a multitouch device.
    fn read_contacts(&self, touch: &mut Touch, info: &DeviceInfo) -> io::Result<()> {
        let ids = self.slot_values(ABS_MT_TRACKING_ID, touch.contacts.len())?;
        for (contact, id) in touch.contacts.iter_mut().zip(ids) {
            *contact = Contact::new(id);
        }
        let axes = info.axes.keys().copied();
        for axis in axes.filter(|axis| is_contact_axis(*axis) && *axis != ABS_MT_TRACKING_ID) {
            let values = self.slot_values(axis, touch.contacts.len())?;
            for (contact, value) in touch.contacts.iter_mut().zip(values) {
                contact.values.insert(axis, value);
            }
        }
        Ok(())
    }

    /// The values of the axis `axis` in all `slots` slots (`EVIOCGMTSLOTS`, which the crate `evdev`
    /// lacks).
    fn slot_values(&self, axis: u16, slots: usize) -> io::Result<Vec<i32>> {
        if slots == 0 {
            return Ok(Vec::new());
        }
        // struct input_mt_request_layout: the axis, then a value for each slot.
        let mut request = vec![0i32; slots.saturating_add(1).min(MAX_SLOTS + 1)];
        request[0] = i32::from(axis);
        // At most 4 * 1025, which an ioctl number can hold.
        let size = size_of_val(request.as_slice()) as u32;
        let number = ioctl::ioctl_expr(ioctl::_IOC_READ, u32::from(b'E'), 0x0a, size);
        // SAFETY: the descriptor is open as long as `self.device` is, and the kernel writes at most
        // as many bytes as the number says, which is the length of `request`.
        let result =
            unsafe { ioctl::ioctl_with_mut_ptr(&self.device, number, request.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(request.split_off(1))
    }
}

impl EventSource for EvdevSource {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn label(&self) -> String {
        format!("{} ({})", self.options.path.display(), self.info.name)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let device = self.device.as_ref()?;
        Some(device.device.as_fd())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        let before = events.len();
        let open = self.device_mut()?;
        let exceeds_info = open.exceeds_info;
        let read = open.device.fetch_events()?;
        events.extend(
            read.map(|event| Event::new(event.event_type().0, event.code(), event.value())),
        );
        let count = events.len() - before;
        if exceeds_info {
            let mut new = events.split_off(before);
            new.retain(|event| event.kind == EV_SYN || self.info.has(event.kind, event.code));
            events.append(&mut new);
        }
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count if count >= READ_CAPACITY => Ok(ReadOutcome::MaybeMore),
            _ => Ok(ReadOutcome::Drained),
        }
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
        self.device_mut()?.device.grab()
    }

    fn ungrab(&mut self) -> io::Result<()> {
        self.device_mut()?.device.ungrab()
    }

    fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        self.opener.as_ref().map(Opener::as_fd)
    }

    fn await_return(&mut self) {
        self.device = None;
        self.opener.iter().for_each(Opener::lost);
    }

    fn take_return(&mut self) -> SourceReturn {
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
                    return SourceReturn::Refused(format!(
                        "the name leads to {} now, which was there beside it",
                        node.display()
                    ));
                }
                Ok(Answer::Failed(error)) => {
                    let error = cannot_open(&self.options.path, error);
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
            let taken = self.take_device(file);
            self.opener.iter().for_each(|opener| match &taken {
                Ok(()) => opener.accepted(),
                Err(Refusal::Unusable(EvdevOpenError::Grabbed(_))) => opener.busy(),
                Err(_) => opener.refused(),
            });
            match taken {
                Ok(()) => return SourceReturn::Back,
                Err(refusal) if settled => {
                    let node = node.display();
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

/// What the device at `path` was when it was there last.
fn described(file: &Path, path: &Path) -> Result<DeviceInfo, EvdevOpenError> {
    let described = description::load(file, path);
    let described = described.map_err(|error| EvdevOpenError::Description {
        path: path.to_owned(),
        file: file.to_owned(),
        error: error.to_string(),
    })?;
    described.ok_or_else(|| EvdevOpenError::NeverSeen(path.to_owned()))
}

/// Why the file at `path` cannot be opened.
fn cannot_open(path: &Path, error: io::Error) -> EvdevOpenError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => EvdevOpenError::Missing(path),
        io::ErrorKind::PermissionDenied => EvdevOpenError::Denied(path),
        io::ErrorKind::IsADirectory => EvdevOpenError::NotEvdev { path, error },
        _ => EvdevOpenError::Io { path, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_error_says_what_the_file_is_not() {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        let open = |path: &Path| {
            let path = path.to_path_buf();
            EvdevSource::open(EvdevOptions {
                path,
                grab: true,
                sandboxed: true,
                description: None,
            })
        };
        let missing = folder.path().join("event0");
        let error = open(&missing).expect_err("there is no such file");
        assert!(matches!(&error, EvdevOpenError::Missing(path) if *path == missing));
        assert!(error.to_string().contains("event0"));
        for path in [folder.path(), Path::new("/dev/null")] {
            let error = open(path).expect_err("it is not an evdev device");
            assert!(matches!(error, EvdevOpenError::NotEvdev { .. }), "{error}");
        }
    }
}
