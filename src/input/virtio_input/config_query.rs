// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Answers the driver's configuration queries (virtio 1.2, 5.8.5) from what the device is.

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::{ConfigQuery, ConfigValue};

/// The answer to `query`; `None` if the device has no such event type or axis, which the driver sees
/// as `size` 0.
pub(super) fn answer(info: &DeviceInfo, query: ConfigQuery) -> Option<ConfigValue<'_>> {
    match query {
        ConfigQuery::Name => Some(ConfigValue::String(&info.name)),
        ConfigQuery::Serial => Some(ConfigValue::String(&info.serial)),
        ConfigQuery::DevIds => Some(ConfigValue::DevIds(info.ids)),
        ConfigQuery::Properties => Some(ConfigValue::Bitmap(&info.properties)),
        ConfigQuery::Codes { kind } => info.codes(kind).map(ConfigValue::Bitmap),
        ConfigQuery::AbsInfo { axis } => info.axes.get(&axis).copied().map(ConfigValue::AbsInfo),
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::{EV_ABS, EV_KEY, EV_LED, EV_REL};
    use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

    use super::*;

    const IDS: DevIds = DevIds {
        bus: 3,
        vendor: 0x56a,
        product: 0x1234,
        version: 0x110,
    };
    const AXIS: AbsInfo = AbsInfo {
        min: -5,
        max: 0x1_0000,
        fuzz: 4,
        flat: 2,
        res: 100,
    };

    fn tablet() -> DeviceInfo {
        let mut device = DeviceInfo {
            name: "Tablet".into(),
            ids: IDS,
            properties: [1].into_iter().collect(),
            ..DeviceInfo::default()
        };
        let codes = &mut device.codes;
        codes.insert(EV_KEY, [0x140, 0x14a].into_iter().collect());
        codes.insert(EV_ABS, [0, 1].into_iter().collect());
        codes.insert(EV_LED, Bitmap::default());
        device.axes.insert(1, AXIS);
        device
    }

    #[test]
    fn every_query_is_answered_from_the_device_info() {
        let device = tablet();
        for (query, value) in [
            (ConfigQuery::Name, ConfigValue::String("Tablet")),
            (ConfigQuery::Serial, ConfigValue::String("")),
            (ConfigQuery::DevIds, ConfigValue::DevIds(IDS)),
            (
                ConfigQuery::Properties,
                ConfigValue::Bitmap(&[1].into_iter().collect()),
            ),
            (
                ConfigQuery::Codes { kind: EV_KEY },
                ConfigValue::Bitmap(&[0x140, 0x14a].into_iter().collect()),
            ),
            (
                ConfigQuery::Codes { kind: EV_LED },
                ConfigValue::Bitmap(&Bitmap::default()),
            ),
            (ConfigQuery::AbsInfo { axis: 1 }, ConfigValue::AbsInfo(AXIS)),
        ] {
            assert_eq!(answer(&device, query), Some(value));
        }
    }

    #[test]
    fn event_types_and_axes_the_device_lacks_have_no_answer() {
        let device = tablet();
        for query in [
            ConfigQuery::Codes { kind: EV_REL },
            ConfigQuery::Codes { kind: 0xff },
            ConfigQuery::AbsInfo { axis: 0 },
            ConfigQuery::AbsInfo { axis: 0x40 },
        ] {
            assert_eq!(answer(&device, query), None);
        }
    }
}
