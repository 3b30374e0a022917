// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device is, in a record: a successor goes on with what the guest was told.

use crate::backend::continuity::{Ledger, RecordKey, ValueError, ValueReader, ValueWriter};
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};
use crate::input::records::{RecordError, tables};

use super::DeviceInfo;

const INFO: RecordKey = RecordKey::new(tables::INFO, 0);

/// What the guest of a predecessor was told that the device is, if there was one.
///
/// # Errors
/// If the record is invalid.
pub(crate) fn load(ledger: &Ledger) -> Result<Option<DeviceInfo>, RecordError> {
    Ok(ledger.read(INFO, decode)?)
}

fn decode(value: &mut ValueReader<'_>) -> Result<DeviceInfo, ValueError> {
    let mut info = DeviceInfo {
        name: decode_text(value)?,
        serial: decode_text(value)?,
        ids: DevIds {
            bus: value.u16()?,
            vendor: value.u16()?,
            product: value.u16()?,
            version: value.u16()?,
        },
        properties: decode_bitmap(value)?,
        ..DeviceInfo::default()
    };
    for _ in 0..value.u8()? {
        let kind = value.u16()?;
        info.codes.insert(kind, decode_bitmap(value)?);
    }
    for _ in 0..value.u8()? {
        let axis = value.u16()?;
        let range = AbsInfo {
            min: value.i32()?,
            max: value.i32()?,
            fuzz: value.i32()?,
            flat: value.i32()?,
            res: value.i32()?,
        };
        info.axes.insert(axis, range);
    }
    Ok(info)
}

/// Whether there is a predecessor, whose guest was told of the device `info`.
///
/// # Errors
/// If it was told of another one.
pub(crate) fn is_left(info: &DeviceInfo, ledger: &Ledger) -> Result<bool, RecordError> {
    let value = |info| {
        let mut value = ValueWriter::default();
        encode(info, &mut value);
        value
    };
    match load(ledger)? {
        None => Ok(false),
        Some(told) if value(&told) == value(info) => Ok(true),
        Some(_) => Err(RecordError::Device),
    }
}

/// Records what the guest is told.
pub(crate) fn put(info: &DeviceInfo, ledger: &Ledger) {
    ledger.write(INFO, |value| encode(info, value));
}

fn encode(info: &DeviceInfo, value: &mut ValueWriter) {
    let DevIds {
        bus,
        vendor,
        product,
        version,
    } = info.ids;
    encode_text(value, &info.name);
    encode_text(value, &info.serial);
    value.u16(bus).u16(vendor).u16(product).u16(version);
    encode_bitmap(value, &info.properties);
    // There are 32 event types and 64 axes.
    value.u8(info.codes.len() as u8);
    for (kind, codes) in &info.codes {
        encode_bitmap(value.u16(*kind), codes);
    }
    value.u8(info.axes.len() as u8);
    for (axis, range) in &info.axes {
        let AbsInfo {
            min,
            max,
            fuzz,
            flat,
            res,
        } = *range;
        value.u16(*axis);
        value.i32(min).i32(max).i32(fuzz).i32(flat).i32(res);
    }
}

/// The kernel has names of 255 bytes at most.
fn encode_text(value: &mut ValueWriter, text: &str) {
    value.u16(text.len() as u16).bytes(text.as_bytes());
}

fn decode_text(value: &mut ValueReader<'_>) -> Result<String, ValueError> {
    let length = value.u16()?;
    let text = std::str::from_utf8(value.bytes(length.into())?);
    Ok(text
        .map_err(|_| ValueError::Content("a name is no text"))?
        .to_owned())
}

fn encode_bitmap(value: &mut ValueWriter, codes: &Bitmap) {
    // At most 128 bytes.
    let bytes = codes.trimmed();
    value.u8(bytes.len() as u8).bytes(bytes);
}

fn decode_bitmap(value: &mut ValueReader<'_>) -> Result<Bitmap, ValueError> {
    let length = value.u8()?;
    let bytes = value.bytes(length.into())?;
    Bitmap::from_trimmed(bytes).ok_or(ValueError::Content("a set of codes is too long"))
}

#[cfg(test)]
mod tests {
    use crate::backend::continuity::value::testing::assert_version;
    use crate::input::device_info::testing::tablet;
    use crate::input::records::testing::KeptRecords;

    use super::*;

    #[test]
    fn successor_knows_what_the_guest_was_told() {
        let mut kept = KeptRecords::new();
        assert!(matches!(load(&kept.ledger()), Ok(None)));
        put(&tablet(), &kept.ledger());
        assert_version(
            &kept.ledger().get(INFO).unwrap(),
            (3, 0x635f_6ca4_958e_7898),
        );
        kept.ledger().commit();
        let info = load(&kept.successor()).unwrap().unwrap();
        assert_eq!(format!("{info:?}"), format!("{:?}", tablet()));
    }

    #[test]
    fn record_that_is_cut_is_refused() {
        let kept = KeptRecords::new();
        let ledger = kept.ledger();
        put(&tablet(), &ledger);
        let value = ledger.get(INFO).unwrap();
        for length in 0..value.len() {
            ledger.put(INFO, &value[..length]);
            assert!(load(&ledger).is_err(), "{length}");
        }
        let mut long = value;
        long.push(0);
        ledger.put(INFO, &long);
        assert!(load(&ledger).is_err());
    }
}
