// SPDX-License-Identifier: Apache-2.0 OR MIT
//! LEDs and sounds, which the driver sets through the statusq (virtio 1.2, 5.8.6).

use std::collections::BTreeMap;

use crate::backend::continuity::{Ledger, RecordKey, ValueError};
use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{EV_LED, EV_SND};
use crate::input::protocol::{Bitmap, Event};
use crate::input::records::{self, RecordError, tables};

const HOST_LEDS: RecordKey = RecordKey::new(tables::HOST_LEDS, 0);

/// The LEDs and sounds of the guest, and the LEDs of the host.
#[derive(Debug, Default)]
pub(super) struct LedsAndSounds {
    /// The values that the guest set last, by event type and code.
    guest: BTreeMap<(u16, u16), i32>,
    /// The LEDs that were on before the guest got the device.
    host_leds: Bitmap,
    ledger: Ledger,
}

impl LedsAndSounds {
    /// What the records say; nothing was set where there are none.
    ///
    /// # Errors
    /// If a record is invalid.
    pub(super) fn load(ledger: Ledger) -> Result<Self, RecordError> {
        let mut leds = Self {
            ledger,
            ..Self::default()
        };
        let guest = leds
            .ledger
            .read_table(tables::LEDS_AND_SOUNDS, |id, value| {
                let (kind, code) = ((id >> 16) as u16, id as u16);
                if led_id(kind, code) != id {
                    return Err(ValueError::Content("there is no such LED or sound"));
                }
                Ok(((kind, code), value.i32()?))
            })?;
        leds.guest = guest.into_iter().collect();
        let host_leds = leds.ledger.read(HOST_LEDS, records::read_codes)?;
        leds.host_leds = host_leds.unwrap_or_default();
        Ok(leds)
    }

    /// Forgets all.
    pub(super) fn reset(&mut self) {
        self.forget_guest();
        self.set_host_leds(Bitmap::default());
    }

    /// Forgets what the last driver set: a new one runs, which has set nothing yet.
    pub(super) fn forget_guest(&mut self) {
        self.guest.clear();
        self.ledger.remove_table(tables::LEDS_AND_SOUNDS);
    }

    /// The LEDs and sounds as the guest set them last: the device has them all then, whatever came of the last one
    /// that was sent to it. A sound that has not ended goes on.
    pub(super) fn of_guest(&self) -> Vec<Event> {
        let guest = self.guest.iter();
        guest
            .map(|((kind, code), value)| Event::new(*kind, *code, *value))
            .collect()
    }

    fn set_host_leds(&mut self, host_leds: Bitmap) {
        self.host_leds = host_leds;
        self.ledger.put(HOST_LEDS, host_leds.trimmed());
    }

    /// A guest gets the device, of which `host_leds` are on. Returns the LED events to send to the
    /// device: those that the guest set before it was paused, or while it waited.
    pub(super) fn guest_got_device(&mut self, host_leds: Bitmap) -> Vec<Event> {
        self.set_host_leds(host_leds);
        // Sounds have ended meanwhile.
        let ledger = &self.ledger;
        self.guest.retain(|(kind, code), _| {
            let lasts = *kind == EV_LED;
            if !lasts {
                ledger.remove(led_key(led_id(*kind, *code)));
            }
            lasts
        });
        self.of_guest()
    }

    /// The guest no longer has the device. Returns the events to send to the device: its LEDs become
    /// those of the host again, and the guest's sounds end.
    pub(super) fn guest_lost_device(&self) -> Vec<Event> {
        self.guest
            .keys()
            .map(|(kind, code)| {
                let lit = *kind == EV_LED && self.host_leds.contains(*code);
                Event::new(*kind, *code, lit.into())
            })
            .collect()
    }

    /// Executes a status event of the driver. Returns the event to send to the device, if it is for an
    /// LED or a sound that the device has.
    ///
    /// Other events are ignored: Linux drivers also send scancodes back. Repeat rates (`EV_REP`) take
    /// effect in the guest, which repeats keys itself, and would outlast it on the device.
    pub(super) fn set(&mut self, event: Event, info: &DeviceInfo) -> Option<Event> {
        let known = matches!(event.kind, EV_LED | EV_SND) && info.has(event.kind, event.code);
        known.then(|| {
            self.guest.insert((event.kind, event.code), event.value);
            let key = led_key(led_id(event.kind, event.code));
            self.ledger.put(key, &event.value.to_le_bytes());
            event
        })
    }
}

fn led_id(kind: u16, code: u16) -> u64 {
    u64::from(kind) << 16 | u64::from(code)
}

fn led_key(id: u64) -> RecordKey {
    RecordKey::new(tables::LEDS_AND_SOUNDS, id)
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::{EV_KEY, EV_MSC, EV_REP};
    use crate::input::records::testing::KeptRecords;

    use super::*;

    fn keyboard() -> DeviceInfo {
        let mut device = DeviceInfo::default();
        device.codes.insert(EV_KEY, [30].into_iter().collect());
        device.codes.insert(EV_MSC, [4].into_iter().collect());
        device.codes.insert(EV_REP, [0, 1].into_iter().collect());
        device.codes.insert(EV_LED, [0, 1].into_iter().collect());
        device.codes.insert(EV_SND, [2].into_iter().collect());
        device
    }

    #[test]
    fn only_leds_and_sounds_of_the_device_are_set() {
        let mut leds = LedsAndSounds::default();
        let device = keyboard();
        for event in [
            Event::new(EV_LED, 1, 1),
            Event::new(EV_LED, 1, 0),
            Event::new(EV_SND, 2, 440),
        ] {
            assert_eq!(leds.set(event, &device), Some(event));
        }
        for event in [
            Event::new(EV_LED, 2, 1),
            Event::new(EV_LED, u16::MAX, 1),
            Event::new(EV_SND, 1, 1),
            Event::new(EV_KEY, 30, 1),
            Event::new(EV_MSC, 4, 30),
            Event::new(EV_REP, 0, 1),
            Event::REPORT,
            Event::new(u16::MAX, 0, i32::MIN),
        ] {
            assert_eq!(leds.set(event, &device), None);
        }
    }

    #[test]
    fn successor_knows_what_guest_and_host_set() {
        let mut kept = KeptRecords::new();
        let mut leds = LedsAndSounds::load(kept.ledger()).unwrap();
        leds.guest_got_device([0].into_iter().collect());
        leds.set(Event::new(EV_LED, 1, 1), &keyboard());
        leds.set(Event::new(EV_SND, 2, 440), &keyboard());
        kept.ledger().commit();
        let mut leds = LedsAndSounds::load(kept.successor()).unwrap();
        let set = [Event::new(EV_LED, 1, 1), Event::new(EV_SND, 2, 440)];
        assert_eq!(leds.of_guest(), set);
        assert!(leds.host_leds.contains(0));
        leds.reset();
        kept.ledger().commit();
        let leds = LedsAndSounds::load(kept.successor()).unwrap();
        assert_eq!(leds.of_guest(), []);
        assert!(leds.host_leds.is_empty());
        for key in [led_key(1 << 32), led_key(0), HOST_LEDS] {
            let kept = KeptRecords::new();
            kept.ledger().put(key, &[0; 200]);
            assert!(LedsAndSounds::load(kept.ledger()).is_err(), "{key:?}");
        }
    }

    #[test]
    fn host_gets_its_leds_back_and_a_paused_guest_its_own() {
        let mut leds = LedsAndSounds::default();
        let device = keyboard();
        assert_eq!(leds.guest_got_device([0].into_iter().collect()), []);
        leds.set(Event::new(EV_LED, 0, 0), &device);
        leds.set(Event::new(EV_LED, 1, 1), &device);
        leds.set(Event::new(EV_SND, 2, 440), &device);
        let host = [
            Event::new(EV_LED, 0, 1),
            Event::new(EV_LED, 1, 0),
            Event::new(EV_SND, 2, 0),
        ];
        assert_eq!(leds.guest_lost_device(), host);
        let guest = [Event::new(EV_LED, 0, 0), Event::new(EV_LED, 1, 1)];
        assert_eq!(leds.guest_got_device([0].into_iter().collect()), guest);
        leds.forget_guest();
        assert_eq!(leds.guest_got_device([0].into_iter().collect()), []);
        assert_eq!(leds.guest_lost_device(), []);
    }
}
