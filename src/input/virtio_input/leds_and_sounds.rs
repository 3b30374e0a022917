//! LEDs and sounds, which the driver sets through the statusq (virtio 1.2, 5.8.6).

use std::collections::BTreeMap;

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{EV_LED, EV_SND};
use crate::input::protocol::{Bitmap, Event};

/// The LEDs and sounds of the guest, and the LEDs of the host.
#[derive(Debug, Default)]
pub(super) struct LedsAndSounds {
    /// The values that the guest set last, by event type and code.
    guest: BTreeMap<(u16, u16), i32>,
    /// The LEDs that were on before the guest got the device.
    host_leds: Bitmap,
}

impl LedsAndSounds {
    /// Forgets what the last driver set: a new one runs, which has set nothing yet.
    pub(super) fn forget_guest(&mut self) {
        self.guest.clear();
    }

    /// A guest gets the device, of which `host_leds` are on. Returns the LED events to send to the
    /// device: those that the guest set before it was paused, or while it waited.
    pub(super) fn guest_got_device(&mut self, host_leds: Bitmap) -> Vec<Event> {
        self.host_leds = host_leds;
        let leds = self.guest.iter().filter(|((kind, _), _)| *kind == EV_LED);
        leds.map(|((kind, code), value)| Event::new(*kind, *code, *value))
            .collect()
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
            event
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::{EV_KEY, EV_MSC, EV_REP};

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
