//! The configuration space: a selector the driver writes, and what it selects (virtio 1.2, 5.8.4
//! and 5.8.5).

use super::source::Description;
use super::wire::{
    CFG_ABS_INFO, CFG_EV_BITS, CFG_ID_DEVIDS, CFG_ID_NAME, CFG_ID_SERIAL, CFG_PROP_BITS,
    CONFIG_SIZE, PAYLOAD, PAYLOAD_SIZE, SELECT, SIZE, SUBSEL,
};

/// The configuration space of one device.
#[derive(Debug, Default)]
pub struct Config {
    select: u8,
    subsel: u8,
}

impl Config {
    /// Takes what the driver wrote at `offset`. Only `select` and `subsel` can be written; the rest
    /// is left as it is, so that a front-end may write the whole structure or a byte of it.
    pub fn write(&mut self, offset: u32, data: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        let at = |field: usize| data.get(field.checked_sub(offset)?).copied();
        self.select = at(SELECT).unwrap_or(self.select);
        self.subsel = at(SUBSEL).unwrap_or(self.subsel);
    }

    /// `size` bytes at `offset`, or nothing at all where these do not lie in the configuration
    /// space: that is how vhost-user answers an error.
    pub fn read(&self, device: &Description, offset: u32, size: u32) -> Vec<u8> {
        let whole = self.whole(device);
        let range = usize::try_from(offset).ok().and_then(|from| {
            let to = from.checked_add(usize::try_from(size).ok()?)?;
            whole.get(from..to)
        });
        range.unwrap_or(&[]).to_vec()
    }

    fn whole(&self, device: &Description) -> [u8; CONFIG_SIZE] {
        let payload = selected(device, self.select, self.subsel);
        let mut whole = [0; CONFIG_SIZE];
        whole[SELECT] = self.select;
        whole[SUBSEL] = self.subsel;
        // At most 128: `selected` keeps to the size of the union.
        whole[SIZE] = payload.len() as u8;
        for (to, from) in whole.iter_mut().skip(PAYLOAD).zip(payload) {
            *to = from;
        }
        whole
    }
}

/// What `select` and `subsel` choose, at most [`PAYLOAD_SIZE`] bytes; empty where the device has no
/// such thing, which the driver sees as `size` 0.
fn selected(device: &Description, select: u8, subsel: u8) -> Vec<u8> {
    let mut payload = match (select, subsel) {
        (CFG_ID_NAME, 0) => string(&device.name),
        (CFG_ID_SERIAL, 0) => string(&device.serial),
        (CFG_ID_DEVIDS, 0) => device.ids.to_bytes(),
        (CFG_PROP_BITS, 0) => device.properties.trimmed().to_vec(),
        (CFG_EV_BITS, kind) => device
            .codes(u16::from(kind))
            .map_or_else(Vec::new, |codes| codes.trimmed().to_vec()),
        (CFG_ABS_INFO, axis) => device
            .axes
            .get(&u16::from(axis))
            .map_or_else(Vec::new, |axis| axis.to_bytes()),
        _ => Vec::new(),
    };
    payload.truncate(PAYLOAD_SIZE);
    payload
}

/// A string as it fits, cut between two characters.
fn string(text: &str) -> Vec<u8> {
    let mut end = text.len().min(PAYLOAD_SIZE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::wire::code::{EV_ABS, EV_KEY, EV_LED, EV_REL, EV_REP};
    use super::super::wire::{Axis, Bits, Ids};
    use super::*;

    fn tablet() -> Description {
        let mut device = Description {
            name: "Tablet".into(),
            serial: String::new(),
            ids: Ids {
                bus: 3,
                vendor: 0x56a,
                product: 0x1234,
                version: 0x110,
            },
            properties: [1].into_iter().collect(),
            ..Description::default()
        };
        device
            .codes
            .insert(EV_KEY, [0x140, 0x14a].into_iter().collect());
        device.codes.insert(EV_ABS, [0, 1].into_iter().collect());
        device.codes.insert(EV_REP, [0, 1].into_iter().collect());
        device.codes.insert(EV_LED, Bits::default());
        let axis = Axis {
            min: -5,
            max: 0x1_0000,
            fuzz: 4,
            flat: 2,
            res: 100,
        };
        device.axes.insert(1, axis);
        device
    }

    fn select(select: u8, subsel: u8) -> (u8, Vec<u8>) {
        let mut config = Config::default();
        config.write(0, &[select, subsel]);
        let whole = config.read(&tablet(), 0, CONFIG_SIZE as u32);
        assert_eq!(whole.len(), CONFIG_SIZE);
        assert_eq!(whole[..2], [select, subsel]);
        assert_eq!(whole[3..8], [0; 5]);
        let size = usize::from(whole[2]);
        assert!(whole[8 + size..].iter().all(|byte| *byte == 0));
        (whole[2], whole[8..8 + size].to_vec())
    }

    #[test]
    fn every_selector_says_what_the_device_has() {
        assert_eq!(select(CFG_ID_NAME, 0), (6, b"Tablet".to_vec()));
        assert_eq!(
            select(CFG_ID_DEVIDS, 0),
            (8, vec![3, 0, 0x6a, 5, 0x34, 0x12, 0x10, 1])
        );
        assert_eq!(select(CFG_PROP_BITS, 0), (1, vec![2]));
        let mut keys = vec![0; 0x28];
        keys.extend([0b1, 0b100]);
        assert_eq!(select(CFG_EV_BITS, EV_KEY as u8), (0x2a, keys));
        assert_eq!(select(CFG_EV_BITS, EV_REP as u8), (1, vec![3]));
        let mut axis = Vec::new();
        for value in [-5i32, 0x1_0000, 4, 2, 100] {
            axis.extend(value.to_le_bytes());
        }
        assert_eq!(select(CFG_ABS_INFO, 1), (20, axis));
    }

    #[test]
    fn what_is_not_there_has_size_0() {
        for (selector, subsel) in [
            (0, 0),
            (CFG_ID_NAME, 1),
            (CFG_ID_SERIAL, 0),
            (CFG_ID_DEVIDS, 1),
            (CFG_PROP_BITS, 1),
            (CFG_EV_BITS, EV_REL as u8),
            (CFG_EV_BITS, EV_LED as u8),
            (CFG_EV_BITS, 0xff),
            (CFG_ABS_INFO, 0),
            (CFG_ABS_INFO, 0x40),
            (0xff, 0xff),
        ] {
            assert_eq!(select(selector, subsel), (0, vec![]), "{selector} {subsel}");
        }
    }

    #[test]
    fn the_selector_is_written_whole_or_by_the_byte() {
        let mut config = Config::default();
        config.write(1, &[1]);
        config.write(0, &[CFG_ABS_INFO]);
        assert_eq!(config.read(&tablet(), 2, 1), [20]);
        let mut whole = [0xaa; CONFIG_SIZE];
        whole[0] = CFG_ID_NAME;
        whole[1] = 0;
        config.write(0, &whole);
        assert_eq!(config.read(&tablet(), 0, 3), [CFG_ID_NAME, 0, 6]);
        // Nothing else can be written, and nothing beyond the end does any harm.
        config.write(2, &[99]);
        config.write(u32::MAX, &[1, 2, 3]);
        config.write(0, &[]);
        assert_eq!(config.read(&tablet(), 0, 3), [CFG_ID_NAME, 0, 6]);
    }

    #[test]
    fn a_read_is_exactly_as_long_as_asked_or_empty() {
        let config = Config::default();
        let device = tablet();
        for (offset, size, length) in [
            (0, 136, 136),
            (0, 137, 0),
            (135, 1, 1),
            (136, 1, 0),
            (8, 128, 128),
            (u32::MAX, u32::MAX, 0),
            (4, 0, 0),
        ] {
            assert_eq!(config.read(&device, offset, size).len(), length);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let device = Description {
            name: format!("{}é", "x".repeat(127)),
            ..Description::default()
        };
        assert_eq!(selected(&device, CFG_ID_NAME, 0), [b'x'; 127]);
    }
}
