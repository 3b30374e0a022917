// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the identity and abilities of an evdev device (`EVIOCGID`, `EVIOCGNAME`, `EVIOCGBIT`,
//! `EVIOCGABS` ...).

use std::io;

use evdev::AttributeSetRef;
use evdev::raw_stream::RawDevice;

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{
    EV_ABS, EV_KEY, EV_LED, EV_MSC, EV_REL, EV_REP, EV_SND, EV_SW, REP_DELAY, REP_PERIOD,
};
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

/// Reads what `device` is and which events it can report.
pub(super) fn read_info(device: &RawDevice) -> io::Result<DeviceInfo> {
    let id = device.input_id();
    let mut info = DeviceInfo {
        name: device.name().unwrap_or_default().to_owned(),
        serial: device.unique_name().unwrap_or_default().to_owned(),
        ids: DevIds {
            bus: id.bus_type().0,
            vendor: id.vendor(),
            product: id.product(),
            version: id.version(),
        },
        properties: bitmap(device.properties(), |property| property.0),
        ..DeviceInfo::default()
    };
    // EV_FF is left out: a driver could start effects through the statusq, but virtio-input has no
    // request to upload one. EV_PWR is internal to the kernel.
    let types = [
        (
            EV_KEY,
            device.supported_keys().map(|set| bitmap(set, |key| key.0)),
        ),
        (
            EV_REL,
            device
                .supported_relative_axes()
                .map(|set| bitmap(set, |axis| axis.0)),
        ),
        (
            EV_ABS,
            device
                .supported_absolute_axes()
                .map(|set| bitmap(set, |axis| axis.0)),
        ),
        (
            EV_MSC,
            device
                .misc_properties()
                .map(|set| bitmap(set, |misc| misc.0)),
        ),
        (
            EV_SW,
            device
                .supported_switches()
                .map(|set| bitmap(set, |switch| switch.0)),
        ),
        (
            EV_LED,
            device.supported_leds().map(|set| bitmap(set, |led| led.0)),
        ),
        (
            EV_SND,
            device
                .supported_sounds()
                .map(|set| bitmap(set, |sound| sound.0)),
        ),
        // The kernel has no bitmap of this type. A device with autorepeat has both codes.
        (
            EV_REP,
            device
                .get_auto_repeat()
                .map(|_| [REP_DELAY, REP_PERIOD].into_iter().collect()),
        ),
    ];
    for (kind, codes) in types {
        if let Some(codes) = codes {
            info.codes.insert(kind, codes);
        }
    }
    for (axis, abs) in device.get_absinfo()? {
        let range = AbsInfo {
            min: abs.minimum(),
            max: abs.maximum(),
            fuzz: abs.fuzz(),
            flat: abs.flat(),
            res: abs.resolution(),
        };
        info.axes.insert(axis.0, range);
    }
    Ok(info)
}

/// The codes in `set`, of which `number` is the code of one.
pub(super) fn bitmap<T: evdev::EvdevEnum>(
    set: &AttributeSetRef<T>,
    number: impl Fn(T) -> u16,
) -> Bitmap {
    set.iter().map(number).collect()
}
