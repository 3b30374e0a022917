// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration space, `struct virtio_input_config` (virtio 1.2, 5.8.4 and 5.8.5): the driver
//! writes a query to `select` and `subsel` and reads its answer from `size` and the union.

use crate::input::protocol::Bitmap;

/// Size of the configuration space in bytes.
pub(crate) const CONFIG_SIZE: usize = 136;
/// Size of the union in bytes, the largest `size`.
const UNION_SIZE: usize = 128;
/// Offset of `select`.
const SELECT: usize = 0;
/// Offset of `subsel`.
const SUBSEL: usize = 1;
/// Offset of `size`.
const SIZE: usize = 2;
/// Offset of the union. Five reserved bytes precede it.
const UNION: usize = 8;

/// `VIRTIO_INPUT_CFG_ID_NAME`
const CFG_ID_NAME: u8 = 0x01;
/// `VIRTIO_INPUT_CFG_ID_SERIAL`
const CFG_ID_SERIAL: u8 = 0x02;
/// `VIRTIO_INPUT_CFG_ID_DEVIDS`
const CFG_ID_DEVIDS: u8 = 0x03;
/// `VIRTIO_INPUT_CFG_PROP_BITS`
const CFG_PROP_BITS: u8 = 0x10;
/// `VIRTIO_INPUT_CFG_EV_BITS`
const CFG_EV_BITS: u8 = 0x11;
/// `VIRTIO_INPUT_CFG_ABS_INFO`
const CFG_ABS_INFO: u8 = 0x12;

/// A query that the driver wrote to `select` and `subsel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigQuery {
    /// The device's name.
    Name,
    /// The device's serial number.
    Serial,
    /// The device's identity.
    DevIds,
    /// The device's properties, `INPUT_PROP_*`.
    Properties,
    /// The codes of an event type.
    Codes {
        /// The event type, one of `EV_*`.
        kind: u16,
    },
    /// The range of an absolute axis.
    AbsInfo {
        /// The axis, one of `ABS_*`.
        axis: u16,
    },
}

impl ConfigQuery {
    /// `None` for a query that the specification does not know, `VIRTIO_INPUT_CFG_UNSET` included.
    fn decode(select: u8, subsel: u8) -> Option<Self> {
        match (select, subsel) {
            (CFG_ID_NAME, 0) => Some(Self::Name),
            (CFG_ID_SERIAL, 0) => Some(Self::Serial),
            (CFG_ID_DEVIDS, 0) => Some(Self::DevIds),
            (CFG_PROP_BITS, 0) => Some(Self::Properties),
            (CFG_EV_BITS, kind) => Some(Self::Codes { kind: kind.into() }),
            (CFG_ABS_INFO, axis) => Some(Self::AbsInfo { axis: axis.into() }),
            _ => None,
        }
    }
}

/// The answer to a [`ConfigQuery`]: the union of the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigValue<'a> {
    /// `u.string`
    String(&'a str),
    /// `u.bitmap`
    Bitmap(&'a Bitmap),
    /// `u.abs`
    AbsInfo(AbsInfo),
    /// `u.ids`
    DevIds(DevIds),
}

impl ConfigValue<'_> {
    /// At most [`UNION_SIZE`] bytes.
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::String(text) => truncated(text).as_bytes().to_vec(),
            Self::Bitmap(codes) => codes.trimmed().to_vec(),
            Self::AbsInfo(info) => info.encode(),
            Self::DevIds(ids) => ids.encode(),
        }
    }
}

/// The part of `text` that the union has room for, cut between two characters.
fn truncated(text: &str) -> &str {
    let mut end = text.len().min(UNION_SIZE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The identity of a device (`struct virtio_input_devids`, evdev's `struct input_id`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevIds {
    /// The bus, one of `BUS_*`.
    pub bus: u16,
    /// The vendor's number on that bus.
    pub vendor: u16,
    /// The vendor's number of the product.
    pub product: u16,
    /// The version of the product.
    pub version: u16,
}

impl DevIds {
    fn encode(self) -> Vec<u8> {
        [self.bus, self.vendor, self.product, self.version]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect()
    }
}

/// The range of an absolute axis (`struct virtio_input_absinfo`, evdev's `struct input_absinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsInfo {
    /// The least value.
    pub min: i32,
    /// The greatest value.
    pub max: i32,
    /// Noise: changes up to this are filtered out.
    pub fuzz: i32,
    /// Values up to this are taken for 0, the centre.
    pub flat: i32,
    /// Resolution in units per millimetre, or per radian.
    pub res: i32,
}

impl AbsInfo {
    fn encode(self) -> Vec<u8> {
        [self.min, self.max, self.fuzz, self.flat, self.res]
            .into_iter()
            .flat_map(i32::to_le_bytes)
            .collect()
    }
}

/// The configuration space with the query that the driver wrote last.
#[derive(Debug, Default)]
pub(crate) struct ConfigSpace {
    select: u8,
    subsel: u8,
}

impl ConfigSpace {
    /// With the query of a driver that wrote `select` and `subsel`.
    pub(crate) fn with_query([select, subsel]: [u8; 2]) -> Self {
        Self { select, subsel }
    }

    /// `select` and `subsel`, as the driver wrote them last.
    pub(crate) fn query_bytes(&self) -> [u8; 2] {
        [self.select, self.subsel]
    }

    /// Writes `data` at `offset`. Only `select` and `subsel` can be written, other bytes are ignored:
    /// a front-end may write the whole structure or one byte of it.
    pub(crate) fn write(&mut self, offset: u32, data: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        let at = |field: usize| data.get(field.checked_sub(offset)?).copied();
        self.select = at(SELECT).unwrap_or(self.select);
        self.subsel = at(SUBSEL).unwrap_or(self.subsel);
    }

    /// The query that the driver wrote last.
    pub(crate) fn query(&self) -> Option<ConfigQuery> {
        ConfigQuery::decode(self.select, self.subsel)
    }

    /// Reads `size` bytes at `offset`, where `value` is the answer to [`Self::query`] and `None` reads
    /// as `size` 0. Returns no bytes unless all of them lie in the configuration space, which is
    /// vhost-user's error reply.
    pub(crate) fn read(&self, value: Option<ConfigValue<'_>>, offset: u32, size: u32) -> Vec<u8> {
        let bytes = self.encode(value);
        let range = usize::try_from(offset).ok().and_then(|from| {
            let to = from.checked_add(usize::try_from(size).ok()?)?;
            bytes.get(from..to)
        });
        range.unwrap_or(&[]).to_vec()
    }

    fn encode(&self, value: Option<ConfigValue<'_>>) -> [u8; CONFIG_SIZE] {
        let value = value.map_or_else(Vec::new, |value| value.encode());
        let mut bytes = [0; CONFIG_SIZE];
        bytes[SELECT] = self.select;
        bytes[SUBSEL] = self.subsel;
        // At most UNION_SIZE, see `ConfigValue::encode`.
        bytes[SIZE] = value.len() as u8;
        for (to, from) in bytes.iter_mut().skip(UNION).zip(value) {
            *to = from;
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
