// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An evdev device that is there: what it is, its grab, and the contacts on it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use evdev::raw_stream::RawDevice;
use rustix::fs::OFlags;
use rustix::io::Errno;
use vmm_sys_util::ioctl;

use crate::input::device_info::{DeviceInfo, MAX_SLOTS};
use crate::input::device_state::{Contact, Touch};
use crate::input::protocol::event_codes::{ABS_MT_TRACKING_ID, is_contact_axis};

use super::EvdevOptions;
use super::address::EvdevAddress;
use super::error::EvdevOpenError;
use super::grab::{Grab, set_grab};
use super::kept_device::LeftDevice;
use super::names::has_long_name;
use super::port::Port;
use super::read_info::read_info;

/// A device that is there.
#[derive(Debug)]
pub(super) struct OpenDevice {
    pub(super) device: RawDevice,
    grab: Grab,
    pub(super) writable: bool,
    /// Whether it can report what the guest was not told of.
    pub(super) exceeds_info: bool,
    /// Where it is plugged in.
    pub(super) port: Port,
}

impl OpenDevice {
    /// The device of an open file, and what it is. Fails now if a guest could not get it later.
    pub(super) fn new(
        file: OwnedFd,
        options: &EvdevOptions,
    ) -> Result<(Self, DeviceInfo), EvdevOpenError> {
        let address = &options.address;
        let (mut device, info) = Self::read(file, address)?;
        if options.grab {
            let grabbed = device.grab().and_then(|()| device.ungrab());
            grabbed.map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => EvdevOpenError::Grabbed(address.clone()),
                _ => EvdevOpenError::Io {
                    address: address.clone(),
                    error,
                },
            })?;
        }
        Ok((device, info))
    }

    /// The device of an open file that is not grabbed, and what it is.
    pub(super) fn read(
        file: OwnedFd,
        address: &EvdevAddress,
    ) -> Result<(Self, DeviceInfo), EvdevOpenError> {
        let not_evdev = |error| EvdevOpenError::NotEvdev {
            address: address.clone(),
            error,
        };
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|error| not_evdev(error.into()))?;
        // The crate panics.
        if has_long_name(&file) {
            return Err(EvdevOpenError::LongName(address.clone()));
        }
        let device = RawDevice::from_fd(file).map_err(not_evdev)?;
        let info = read_info(&device).map_err(not_evdev)?;
        let device = Self {
            port: Port::of(&device),
            device,
            grab: Grab::Free,
            writable: flags.contains(OFlags::RDWR),
            exceeds_info: false,
        };
        Ok((device, info))
    }

    /// The device that a predecessor left, of which the guest was told `told`, and what it is; `None` if it is gone.
    pub(super) fn left(
        left: LeftDevice,
        options: &EvdevOptions,
        told: &DeviceInfo,
    ) -> Option<(Self, DeviceInfo)> {
        let address = &options.address;
        let (mut device, info) = match Self::read(left.file?, address) {
            Ok(read) => read,
            Err(EvdevOpenError::NotEvdev { error, .. })
                if Errno::from_io_error(&error) == Some(Errno::NODEV) =>
            {
                log::warn!("{address} was unplugged, and is waited for");
                return None;
            }
            Err(error) => {
                log::error!("lost {address} during the restart: {error}");
                return None;
            }
        };
        device.exceeds_info = told.is_exceeded_by(&info);
        device.grab = Grab::Left {
            is_recorded: left.grab,
        };
        Some((device, info))
    }

    pub(super) fn grab(&mut self) -> io::Result<()> {
        let device = self.device.as_fd();
        self.grab.begin(|grab| set_grab(device, grab))
    }

    pub(super) fn ungrab(&mut self) -> io::Result<()> {
        let device = self.device.as_fd();
        self.grab.end(|grab| set_grab(device, grab))
    }

    /// Reads the contacts in the slots of a multitouch device.
    pub(super) fn read_contacts(&self, touch: &mut Touch, info: &DeviceInfo) -> io::Result<()> {
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
