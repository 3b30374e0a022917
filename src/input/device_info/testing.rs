// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices for unit tests.

use crate::input::protocol::event_codes::{EV_ABS, EV_KEY, EV_REP};
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

use super::DeviceInfo;

/// A device with something of all that is kept.
pub(crate) fn tablet() -> DeviceInfo {
    let mut info = DeviceInfo {
        name: "Tablet \u{fc}".into(),
        serial: "7".into(),
        ids: DevIds {
            bus: 3,
            vendor: 0x56a,
            product: 0xffff,
            version: 1,
        },
        properties: [1].into_iter().collect(),
        ..DeviceInfo::default()
    };
    info.codes.insert(EV_KEY, (0..0x300).collect());
    info.codes.insert(EV_ABS, [0].into_iter().collect());
    info.codes.insert(EV_REP, Bitmap::default());
    let range = AbsInfo {
        min: i32::MIN,
        max: i32::MAX,
        fuzz: 1,
        flat: -2,
        res: 3,
    };
    info.axes.insert(0, range);
    info
}
