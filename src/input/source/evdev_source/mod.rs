//! An evdev device of the host as the source.

mod error;
mod read_info;
mod sandbox_policy;

pub use error::EvdevOpenError;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use evdev::InputEvent;
use evdev::raw_stream::RawDevice;
use rustix::fs::OFlags;
use vmm_sys_util::ioctl;

use crate::backend::SandboxPolicy;
use crate::input::device_info::{DeviceInfo, MAX_SLOTS};
use crate::input::device_state::{Contact, DeviceState, Touch};
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_LED, EV_SW, is_contact_axis,
};
use crate::input::protocol::{Bitmap, Event};
use crate::input::source::{EventSource, HostAccess, ReadOutcome};

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
}

/// An evdev device of the host.
#[derive(Debug)]
pub struct EvdevSource {
    device: RawDevice,
    info: DeviceInfo,
    options: EvdevOptions,
    writable: bool,
}

impl EvdevSource {
    /// Opens an evdev device and reads what it is.
    ///
    /// # Errors
    /// If there is no such device, it is not an evdev device, the user has no permission, or it is to
    /// be grabbed and another process has done so.
    pub fn open(options: EvdevOptions) -> Result<Self, EvdevOpenError> {
        let path = &options.path;
        let not_evdev = |error| EvdevOpenError::NotEvdev {
            path: path.clone(),
            error,
        };
        let opened = open_file(path)?;
        let device = RawDevice::from_fd(OwnedFd::from(opened.file)).map_err(not_evdev)?;
        let info = read_info(&device).map_err(not_evdev)?;
        if !opened.writable {
            log::warn!(
                "{} cannot be written: its LEDs will not follow the guest",
                path.display()
            );
        }
        let mut source = Self {
            device,
            info,
            options,
            writable: opened.writable,
        };
        if source.options.grab {
            source.try_grab()?;
        }
        Ok(source)
    }

    /// Fails now if a guest could not get the device later.
    fn try_grab(&mut self) -> Result<(), EvdevOpenError> {
        let grabbed = self.grab().and_then(|()| self.ungrab());
        grabbed.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => EvdevOpenError::Grabbed(self.options.path.clone()),
            _ => EvdevOpenError::Io {
                path: self.options.path.clone(),
                error,
            },
        })
    }

    /// Reads the contacts in the slots of a multitouch device.
    fn read_contacts(&self, touch: &mut Touch) -> io::Result<()> {
        let ids = self.slot_values(ABS_MT_TRACKING_ID, touch.contacts.len())?;
        for (contact, id) in touch.contacts.iter_mut().zip(ids) {
            *contact = Contact::new(id);
        }
        let axes = self.info.axes.keys().copied();
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

    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        let before = events.len();
        let read = self.device.fetch_events()?;
        events.extend(
            read.map(|event| Event::new(event.event_type().0, event.code(), event.value())),
        );
        match events.len() - before {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count if count >= READ_CAPACITY => Ok(ReadOutcome::MaybeMore),
            _ => Ok(ReadOutcome::Drained),
        }
    }

    fn state(&self) -> io::Result<DeviceState> {
        let mut state = DeviceState::new(self.info.slots());
        if self.info.codes(EV_KEY).is_some() {
            state.keys = bitmap(&*self.device.get_key_state()?, |key| key.0);
        }
        if self.info.codes(EV_SW).is_some() {
            state.switches = bitmap(&*self.device.get_switch_state()?, |switch| switch.0);
        }
        if self.info.codes(EV_ABS).is_some() {
            for (axis, info) in self.device.get_absinfo()? {
                match axis.0 {
                    ABS_MT_SLOT => state.touch.slot = usize::try_from(info.value()).ok(),
                    axis if is_contact_axis(axis) => {}
                    axis => {
                        state.axes.insert(axis, info.value());
                    }
                }
            }
            self.read_contacts(&mut state.touch)?;
        }
        Ok(state)
    }

    fn leds(&self) -> io::Result<Bitmap> {
        if self.info.codes(EV_LED).is_none() {
            return Ok(Bitmap::default());
        }
        Ok(bitmap(&*self.device.get_led_state()?, |led| led.0))
    }

    fn send(&mut self, events: &[Event]) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        let events: Vec<_> = events
            .iter()
            .map(|event| InputEvent::new(event.kind, event.code, event.value))
            .collect();
        self.device.send_events(&events)
    }

    fn host_access(&self) -> HostAccess {
        if self.options.grab {
            HostAccess::UntilGrab
        } else {
            HostAccess::Shared
        }
    }

    fn grab(&mut self) -> io::Result<()> {
        self.device.grab()
    }

    fn ungrab(&mut self) -> io::Result<()> {
        self.device.ungrab()
    }

    fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy()
    }
}

struct OpenedFile {
    file: File,
    writable: bool,
}

/// Opens `path` for reading, and for writing as well if the user may: LEDs and sounds need that.
fn open_file(path: &Path) -> Result<OpenedFile, EvdevOpenError> {
    let open = |writable: bool| {
        // A terminal given by mistake must not become the program's own.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        Ok(OpenedFile { file, writable })
    };
    let opened = open(true).or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => open(false),
        _ => Err(error),
    });
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => EvdevOpenError::Missing(path.into()),
        io::ErrorKind::PermissionDenied => EvdevOpenError::Denied(path.into()),
        io::ErrorKind::IsADirectory => EvdevOpenError::NotEvdev {
            path: path.into(),
            error,
        },
        _ => EvdevOpenError::Io {
            path: path.into(),
            error,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_error_says_what_the_file_is_not() {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        let open = |path: &Path| {
            let path = path.to_path_buf();
            EvdevSource::open(EvdevOptions { path, grab: true })
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
