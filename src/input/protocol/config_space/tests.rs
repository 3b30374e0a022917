// SPDX-License-Identifier: Apache-2.0 OR MIT

use crate::input::protocol::event_codes::{EV_ABS, EV_KEY};

use super::*;

/// The configuration space after `select` and `subsel` were written.
fn selected(select: u8, subsel: u8) -> ConfigSpace {
    let mut config = ConfigSpace::default();
    config.write(0, &[select, subsel]);
    config
}

fn read(select: u8, subsel: u8, value: Option<ConfigValue<'_>>) -> (u8, Vec<u8>) {
    let bytes = selected(select, subsel).read(value, 0, CONFIG_SIZE as u32);
    assert_eq!(bytes.len(), CONFIG_SIZE);
    assert_eq!(bytes[..2], [select, subsel]);
    assert_eq!(bytes[3..8], [0; 5]);
    let size = usize::from(bytes[2]);
    assert!(bytes[8 + size..].iter().all(|byte| *byte == 0));
    (bytes[2], bytes[8..8 + size].to_vec())
}

#[test]
fn every_query_is_decoded() {
    for (select, subsel, query) in [
        (CFG_ID_NAME, 0, ConfigQuery::Name),
        (CFG_ID_SERIAL, 0, ConfigQuery::Serial),
        (CFG_ID_DEVIDS, 0, ConfigQuery::DevIds),
        (CFG_PROP_BITS, 0, ConfigQuery::Properties),
        (
            CFG_EV_BITS,
            EV_KEY as u8,
            ConfigQuery::Codes { kind: EV_KEY },
        ),
        (
            CFG_EV_BITS,
            EV_ABS as u8,
            ConfigQuery::Codes { kind: EV_ABS },
        ),
        (CFG_EV_BITS, 0xff, ConfigQuery::Codes { kind: 0xff }),
        (CFG_ABS_INFO, 0, ConfigQuery::AbsInfo { axis: 0 }),
        (CFG_ABS_INFO, 0x40, ConfigQuery::AbsInfo { axis: 0x40 }),
    ] {
        assert_eq!(selected(select, subsel).query(), Some(query));
    }
    for (select, subsel) in [
        (0, 0),
        (CFG_ID_NAME, 1),
        (CFG_ID_SERIAL, 1),
        (CFG_ID_DEVIDS, 1),
        (CFG_PROP_BITS, 1),
        (0xff, 0xff),
    ] {
        assert_eq!(selected(select, subsel).query(), None);
    }
}

#[test]
fn every_value_is_encoded_with_its_size() {
    let name = ConfigValue::String("Tablet");
    assert_eq!(read(CFG_ID_NAME, 0, Some(name)), (6, b"Tablet".to_vec()));
    let ids = ConfigValue::DevIds(DevIds {
        bus: 3,
        vendor: 0x56a,
        product: 0x1234,
        version: 0x110,
    });
    assert_eq!(
        read(CFG_ID_DEVIDS, 0, Some(ids)),
        (8, vec![3, 0, 0x6a, 5, 0x34, 0x12, 0x10, 1])
    );
    let properties = [1].into_iter().collect();
    assert_eq!(
        read(CFG_PROP_BITS, 0, Some(ConfigValue::Bitmap(&properties))),
        (1, vec![2])
    );
    let codes = [0x140, 0x14a].into_iter().collect();
    let mut keys = vec![0; 0x28];
    keys.extend([0b1, 0b100]);
    assert_eq!(
        read(CFG_EV_BITS, EV_KEY as u8, Some(ConfigValue::Bitmap(&codes))),
        (0x2a, keys)
    );
    let info = ConfigValue::AbsInfo(AbsInfo {
        min: -5,
        max: 0x1_0000,
        fuzz: 4,
        flat: 2,
        res: 100,
    });
    let mut axis = Vec::new();
    for value in [-5i32, 0x1_0000, 4, 2, 100] {
        axis.extend(value.to_le_bytes());
    }
    assert_eq!(read(CFG_ABS_INFO, 1, Some(info)), (20, axis));
}

#[test]
fn missing_and_empty_values_have_size_0() {
    let none = Bitmap::default();
    for value in [
        None,
        Some(ConfigValue::String("")),
        Some(ConfigValue::Bitmap(&none)),
    ] {
        assert_eq!(read(CFG_EV_BITS, EV_KEY as u8, value), (0, vec![]));
    }
}

#[test]
fn query_is_written_whole_or_by_the_byte() {
    let mut config = ConfigSpace::default();
    config.write(1, &[1]);
    config.write(0, &[CFG_ABS_INFO]);
    assert_eq!(config.query(), Some(ConfigQuery::AbsInfo { axis: 1 }));
    let mut whole = [0xaa; CONFIG_SIZE];
    whole[0] = CFG_ID_NAME;
    whole[1] = 0;
    config.write(0, &whole);
    assert_eq!(config.query(), Some(ConfigQuery::Name));
    // Nothing else can be written, and data beyond the end does no harm.
    config.write(2, &[99]);
    config.write(u32::MAX, &[1, 2, 3]);
    config.write(0, &[]);
    let name = Some(ConfigValue::String("Tablet"));
    assert_eq!(config.read(name, 0, 3), [CFG_ID_NAME, 0, 6]);
}

#[test]
fn read_returns_as_many_bytes_as_requested_or_none() {
    let config = ConfigSpace::default();
    for (offset, size, length) in [
        (0, 136, 136),
        (0, 137, 0),
        (135, 1, 1),
        (136, 1, 0),
        (8, 128, 128),
        (u32::MAX, u32::MAX, 0),
        (4, 0, 0),
    ] {
        assert_eq!(config.read(None, offset, size).len(), length);
    }
}

#[test]
fn long_string_is_cut_between_characters() {
    let name = format!("{}é", "x".repeat(127));
    let value = ConfigValue::String(&name);
    assert_eq!(value.encode(), [b'x'; 127]);
}
