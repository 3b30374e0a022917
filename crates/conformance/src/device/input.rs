// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-input: what its configuration tells, and what a driver sends.

use conventions::DeviceType;
use frontend::Memory;
use frontend::VhostUserProtocolFeatures as Protocol;
use frontend::input::{ConfigAccess, Event, Input, InputOptions, Select};

use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::{Served, Started, Trial};

const INPUT: &[DeviceType] = &[DeviceType::Input];
const CONFIG: &str = "virtio 1.2, 5.8.4";
const EV_KEY: u8 = 1;
const EV_REL: u8 = 2;
const EV_ABS: u8 = 3;
const EV_LED: u16 = 0x11;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "device/input-name",
        CONFIG,
        "The device has a name, and its strings have no NUL at their end.",
        name,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-ids",
        CONFIG,
        "The device's numbers are bus, vendor, product and version, of 16 bits each, or there are none.",
        ids,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-bits",
        CONFIG,
        "The device has keys, relative or absolute axes.",
        bits,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-axes",
        CONFIG,
        "Each absolute axis has its range, of more than one value.",
        axes,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-absent",
        CONFIG,
        "The size of what the device does not have is 0.",
        absent,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-bytes",
        "vhost-user.rst, VHOST_USER_SET_CONFIG",
        "The configuration is selected and read byte by byte, as a guest's driver does it, with the same result as whole.",
        bytes,
    )
    .of(INPUT)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/input-status",
        "virtio 1.2, 5.8.6.2",
        "Events that a driver sends are taken, also of lights that the device does not have.",
        status,
    )
    .of(INPUT),
];

struct Driver {
    /// First, so that the front-end leaves before the program is killed.
    input: Input,
    _started: Started,
}

fn connect(trial: &Trial, access: ConfigAccess) -> Result<Driver, Flaw> {
    let Served { session, started } = trial.serve()?;
    let memory = Memory::with_size(1 << 20)?;
    let options = InputOptions {
        access,
        ..InputOptions::default()
    };
    Ok(Driver {
        input: Input::connect(session, &memory, options)?,
        _started: started,
    })
}

fn whole(trial: &Trial) -> Result<Driver, Flaw> {
    connect(trial, ConfigAccess::Whole)
}

fn name(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    for (what, select) in [
        ("the name", Select::IdName),
        ("the serial number", Select::IdSerial),
    ] {
        if driver.input.config(select, 0)?.ends_with(&[0]) {
            return fails(format!("{what} ends with a NUL"));
        }
    }
    match driver.input.name()? {
        name if name.is_empty() => fails("there is none"),
        name => Ok(format!("\"{}\"", conventions::printable(&name))),
    }
}

fn ids(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    if driver.input.config(Select::IdDevids, 0)?.is_empty() {
        return Ok("there are none".into());
    }
    let [bus, vendor, product, version] = driver.input.devids()?;
    Ok(format!(
        "bus {bus:#x}, {vendor:04x}:{product:04x}, version {version:#x}"
    ))
}

/// The numbers of the bits that are set.
fn numbers(bits: &[u8]) -> Vec<u8> {
    let all = (0..bits.len() * 8).filter(|n| bits[n / 8] >> (n % 8) & 1 == 1);
    all.map(|n| n as u8).collect()
}

fn bits(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    let mut seen = Vec::new();
    for (what, kind) in [
        ("keys", EV_KEY),
        ("relative axes", EV_REL),
        ("absolute axes", EV_ABS),
    ] {
        let bits = driver.input.config(Select::EvBits, kind)?;
        let count: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        if count > 0 {
            seen.push(format!("{count} {what}"));
        }
    }
    match seen.is_empty() {
        true => fails("there are none"),
        false => Ok(seen.join(", ")),
    }
}

fn axes(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    let axes = numbers(&driver.input.config(Select::EvBits, EV_ABS)?);
    if axes.is_empty() {
        return not_tried("the device has no absolute axes");
    }
    let mut seen = Vec::new();
    for axis in axes {
        let info = driver.input.config(Select::AbsInfo, axis)?;
        let word = |n: usize| -> Option<i32> {
            let bytes = info.get(4 * n..4 * n + 4)?;
            Some(i32::from_le_bytes(bytes.try_into().ok()?))
        };
        match (word(0), word(1), info.len()) {
            (Some(min), Some(max), 20) if min < max => seen.push(format!("{axis}: {min} to {max}")),
            (Some(min), Some(max), 20) => return fails(format!("axis {axis}: {min} to {max}")),
            (_, _, size) => return fails(format!("axis {axis} has {size} bytes instead of 20")),
        }
    }
    Ok(seen.join(", "))
}

fn absent(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    for (what, select, subsel) in [
        ("EV_BITS of type 0x1e", Select::EvBits, 0x1e),
        ("ABS_INFO of axis 0x3e", Select::AbsInfo, 0x3e),
        ("no selector", Select::Unset, 0),
    ] {
        let size = driver.input.config(select, subsel)?.len();
        if size != 0 {
            return fails(format!("{what} has {size} bytes"));
        }
    }
    Ok("3 of 3 have the size 0".into())
}

fn bytes(trial: &Trial) -> Seen {
    let read = |driver: &mut Driver| -> Result<_, Flaw> {
        let name = driver.input.name()?;
        let keys = driver.input.config(Select::EvBits, EV_KEY)?;
        Ok((name, keys))
    };
    let as_whole = read(&mut whole(trial)?)?;
    let by_bytes = read(&mut connect(trial, ConfigAccess::Bytes)?)?;
    match as_whole == by_bytes {
        true => Ok(format!(
            "{} bytes are the same",
            by_bytes.0.len() + by_bytes.1.len()
        )),
        false => fails(format!("{by_bytes:?} by bytes, {as_whole:?} as a whole")),
    }
}

fn status(trial: &Trial) -> Seen {
    let mut driver = whole(trial)?;
    driver.input.run()?;
    driver.input.session.settle()?;
    let events = [
        Event::new(EV_LED, 0, 1),
        Event::new(EV_LED, 0, 0),
        // LED_MISC and one that does not exist.
        Event::new(EV_LED, 5, 1),
        Event::new(EV_LED, 0x3ff, 1),
        Event::report(),
    ];
    driver.input.submit_status(&events)?;
    for _ in &events {
        driver.input.status.wait_used(trial.left())?;
    }
    Ok(format!("{} events are taken", events.len()))
}
