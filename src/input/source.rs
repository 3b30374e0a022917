//! Where the events come from: an evdev device of the host.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use evdev::raw_stream::RawDevice;
use evdev::{AttributeSetRef, InputEvent};
use rustix::fs::OFlags;
use vmm_sys_util::ioctl;

use super::state::{Contact, State, Touch};
use super::wire::code::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_LED, EV_MSC, EV_REL, EV_REP, EV_SND, EV_SW,
    REP_DELAY, REP_PERIOD, is_contact_axis,
};
use super::wire::{Axis, Bits, Event, Ids};

/// The most slots that are followed on a multitouch device. Linux makes no more either.
const MAX_SLOTS: usize = 1024;

/// What a device is and what it can report.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// What it calls itself.
    pub name: String,
    /// Its serial number or address ("uniq"); empty for none.
    pub serial: String,
    /// Its identity.
    pub ids: Ids,
    /// `INPUT_PROP_*`.
    pub properties: Bits,
    /// Its absolute axes, by code.
    pub axes: BTreeMap<u16, Axis>,
    /// The codes of each event type it has, by type.
    pub codes: BTreeMap<u16, Bits>,
}

impl Description {
    /// The codes of the event type `kind` that the device has; `None` where it does not have the
    /// type.
    pub fn codes(&self, kind: u16) -> Option<&Bits> {
        self.codes.get(&kind)
    }

    /// Whether the device has the code `code` of the event type `kind`.
    pub fn has(&self, kind: u16, code: u16) -> bool {
        self.codes(kind).is_some_and(|codes| codes.contains(code))
    }

    /// How many contacts a multitouch device with slots (type B) follows; 0 for any other device.
    pub fn slots(&self) -> usize {
        let Some(slot) = self.axes.get(&ABS_MT_SLOT) else {
            return 0;
        };
        usize::try_from(slot.max)
            .map_or(0, |last| last.saturating_add(1))
            .min(MAX_SLOTS)
    }

    /// Whether this is a multitouch device without slots (type A), whose every report tells all the
    /// contacts.
    pub fn is_slotless(&self) -> bool {
        self.slots() == 0 && self.axes.keys().any(|axis| is_contact_axis(*axis))
    }
}

/// Events that a read of the crate evdev has room for, or more.
const READ_ROOM: usize = 32;

/// An input device of the host. Nothing of it may block.
pub trait Source: Send + Sync + 'static {
    /// What the device is.
    fn description(&self) -> &Description;

    /// The descriptor that is readable while there are events.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Appends the next events to `events`. `true` where there may be more already.
    ///
    /// # Errors
    /// `WouldBlock` where there are none now; any other kind where the device is gone.
    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<bool>;

    /// What is pressed, switched and touched now, also by events that are not yet to be read.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    fn state(&self) -> io::Result<State>;

    /// The LEDs that are lit now.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    fn leds(&self) -> io::Result<Bits>;

    /// Has the device do `events`: light LEDs, sound.
    ///
    /// # Errors
    /// As `write(2)`.
    fn write(&mut self, events: &[Event]) -> io::Result<()>;

    /// Keeps the events from everyone else on the host.
    ///
    /// # Errors
    /// `ResourceBusy` where another process does that already.
    fn grab(&mut self) -> io::Result<()>;

    /// Ends [`Source::grab`].
    ///
    /// # Errors
    /// As `ioctl(2)`.
    fn release(&mut self) -> io::Result<()>;
}

/// Why an evdev device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("there is no input device {}: see `vhostctl list-devices`", .0.display())]
    Missing(PathBuf),
    /// The user may not read it.
    #[error(
        "no permission to open the input device {}: run as a member of the group that owns it (usually \"input\"); a systemd unit also needs DeviceAllow= for it",
        .0.display()
    )]
    Denied(PathBuf),
    /// It opens, and does not answer as evdev does.
    #[error("{} is not an evdev device, as /dev/input/event* are: {error}", .path.display())]
    NotEvdev {
        /// The file.
        path: PathBuf,
        /// What it answered.
        error: io::Error,
    },
    /// Another process keeps its events for itself.
    #[error(
        "the input device {} is grabbed by another process, perhaps for another VM: end that one, or use --no-grab to share it",
        .0.display()
    )]
    Grabbed(PathBuf),
    /// Anything else.
    #[error("cannot open the input device {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A device of the kernel's evdev.
#[derive(Debug)]
pub struct Evdev {
    device: RawDevice,
    description: Description,
    writable: bool,
}

impl Evdev {
    /// Opens `/dev/input/event*` or a link to one.
    ///
    /// # Errors
    /// Where there is none, it is something else, or the user may not.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let open = |write: bool| {
            // A terminal given by mistake must not become the program's own.
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(flags.bits().cast_signed())
                .open(path)
        };
        // Only LEDs and sounds need the right to write.
        let file = open(true)
            .map(|file| (file, true))
            .or_else(|error| match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    open(false).map(|file| (file, false))
                }
                _ => Err(error),
            });
        let (file, writable) = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::Missing(path.into()),
            io::ErrorKind::PermissionDenied => OpenError::Denied(path.into()),
            io::ErrorKind::IsADirectory => OpenError::NotEvdev {
                path: path.into(),
                error,
            },
            _ => OpenError::Io {
                path: path.into(),
                error,
            },
        })?;
        let not_evdev = |error| OpenError::NotEvdev {
            path: path.into(),
            error,
        };
        let device = RawDevice::from_fd(OwnedFd::from(file)).map_err(not_evdev)?;
        let description = describe(&device).map_err(not_evdev)?;
        if !writable {
            log::warn!(
                "{} cannot be written: its LEDs will not follow the guest",
                path.display()
            );
        }
        Ok(Self {
            device,
            description,
            writable,
        })
    }
}

impl Source for Evdev {
    fn description(&self) -> &Description {
        &self.description
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let before = events.len();
        let read = self.device.fetch_events()?;
        events.extend(
            read.map(|event| Event::new(event.event_type().0, event.code(), event.value())),
        );
        match events.len() - before {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count >= READ_ROOM),
        }
    }

    fn state(&self) -> io::Result<State> {
        let mut state = State::new(self.description.slots());
        if self.description.codes(EV_KEY).is_some() {
            state.keys = bits(&*self.device.get_key_state()?, |key| key.0);
        }
        if self.description.codes(EV_SW).is_some() {
            state.switches = bits(&*self.device.get_switch_state()?, |switch| switch.0);
        }
        if self.description.codes(EV_ABS).is_some() {
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

    fn leds(&self) -> io::Result<Bits> {
        if self.description.codes(EV_LED).is_none() {
            return Ok(Bits::default());
        }
        Ok(bits(&*self.device.get_led_state()?, |led| led.0))
    }

    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        let events: Vec<_> = events
            .iter()
            .map(|event| InputEvent::new(event.kind, event.code, event.value))
            .collect();
        self.device.send_events(&events)
    }

    fn grab(&mut self) -> io::Result<()> {
        self.device.grab()
    }

    fn release(&mut self) -> io::Result<()> {
        self.device.ungrab()
    }
}

impl Evdev {
    /// Fills in the contacts in the slots of a multitouch device.
    fn read_contacts(&self, touch: &mut Touch) -> io::Result<()> {
        let ids = self.slot_values(ABS_MT_TRACKING_ID, touch.contacts.len())?;
        for (contact, id) in touch.contacts.iter_mut().zip(ids) {
            *contact = Contact::new(id);
        }
        let axes = self.description.axes.keys().copied();
        for axis in axes.filter(|axis| is_contact_axis(*axis) && *axis != ABS_MT_TRACKING_ID) {
            let values = self.slot_values(axis, touch.contacts.len())?;
            for (contact, value) in touch.contacts.iter_mut().zip(values) {
                contact.values.insert(axis, value);
            }
        }
        Ok(())
    }

    /// The values of the axis `axis` in all `slots` slots (`EVIOCGMTSLOTS`, which the crate evdev
    /// does not offer).
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

fn describe(device: &RawDevice) -> io::Result<Description> {
    let id = device.input_id();
    let mut description = Description {
        name: device.name().unwrap_or_default().to_owned(),
        serial: device.unique_name().unwrap_or_default().to_owned(),
        ids: Ids {
            bus: id.bus_type().0,
            vendor: id.vendor(),
            product: id.product(),
            version: id.version(),
        },
        properties: bits(device.properties(), |property| property.0),
        ..Description::default()
    };
    // EV_FF is left out: a driver could start effects through the status queue, but virtio-input
    // has no request to upload one, so there would be none to start. EV_PWR is the kernel's own.
    let types = [
        (
            EV_KEY,
            device.supported_keys().map(|set| bits(set, |key| key.0)),
        ),
        (
            EV_REL,
            device
                .supported_relative_axes()
                .map(|set| bits(set, |axis| axis.0)),
        ),
        (
            EV_ABS,
            device
                .supported_absolute_axes()
                .map(|set| bits(set, |axis| axis.0)),
        ),
        (
            EV_MSC,
            device.misc_properties().map(|set| bits(set, |misc| misc.0)),
        ),
        (
            EV_SW,
            device
                .supported_switches()
                .map(|set| bits(set, |switch| switch.0)),
        ),
        (
            EV_LED,
            device.supported_leds().map(|set| bits(set, |led| led.0)),
        ),
        (
            EV_SND,
            device
                .supported_sounds()
                .map(|set| bits(set, |sound| sound.0)),
        ),
        // The kernel has no bitmap for this type; a device that repeats has both codes.
        (
            EV_REP,
            device
                .get_auto_repeat()
                .map(|_| [REP_DELAY, REP_PERIOD].into_iter().collect()),
        ),
    ];
    for (kind, codes) in types {
        if let Some(codes) = codes {
            description.codes.insert(kind, codes);
        }
    }
    for (axis, info) in device.get_absinfo()? {
        let range = Axis {
            min: info.minimum(),
            max: info.maximum(),
            fuzz: info.fuzz(),
            flat: info.flat(),
            res: info.resolution(),
        };
        description.axes.insert(axis.0, range);
    }
    Ok(description)
}

fn bits<T: evdev::EvdevEnum>(set: &AttributeSetRef<T>, number: impl Fn(T) -> u16) -> Bits {
    set.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::super::wire::code::ABS_MT_FIRST;
    use super::*;

    #[test]
    fn what_is_no_input_device_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        let missing = folder.path().join("event0");
        let error = Evdev::open(&missing).expect_err("there is none");
        assert!(matches!(&error, OpenError::Missing(path) if *path == missing));
        assert!(error.to_string().contains("event0"));
        for path in [folder.path(), Path::new("/dev/null")] {
            let error = Evdev::open(path).expect_err("it is no evdev device");
            assert!(matches!(error, OpenError::NotEvdev { .. }), "{error}");
        }
    }

    #[test]
    fn slots_are_counted_and_bounded() {
        let mut device = Description::default();
        assert_eq!((device.slots(), device.is_slotless()), (0, false));
        device.axes.insert(ABS_MT_FIRST, Axis::default());
        assert_eq!((device.slots(), device.is_slotless()), (0, true));
        for (max, slots) in [(-1, 0), (0, 1), (9, 10), (i32::MAX, MAX_SLOTS)] {
            let axis = Axis {
                max,
                ..Axis::default()
            };
            device.axes.insert(ABS_MT_SLOT, axis);
            assert_eq!(device.slots(), slots);
        }
    }
}
