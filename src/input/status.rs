//! What the guest has the device do: light its LEDs and sound.

use std::collections::BTreeMap;

use super::source::Description;
use super::wire::code::{EV_LED, EV_SND};
use super::wire::{Bits, Event};

/// The LEDs and sounds as the guest and as the host want them.
#[derive(Debug, Default)]
pub struct Status {
    /// What the guest asked for last, by type and code.
    guest: BTreeMap<(u16, u16), i32>,
    /// The LEDs that were lit before the guest had the device.
    host_leds: Bits,
}

impl Status {
    /// A guest begins anew, of which nothing is known.
    pub fn forget_guest(&mut self) {
        self.guest.clear();
    }

    /// A guest has the device from now on, `host_leds` being lit. What it asked for before it was
    /// paused, or while it waited, is to be done now.
    pub fn begin(&mut self, host_leds: Bits) -> Vec<Event> {
        self.host_leds = host_leds;
        let leds = self.guest.iter().filter(|((kind, _), _)| *kind == EV_LED);
        leds.map(|((kind, code), value)| Event::new(*kind, *code, *value))
            .collect()
    }

    /// No guest has the device any more: the LEDs are to be as the host had them, and silent is what
    /// the guest had sound.
    pub fn end(&self) -> Vec<Event> {
        self.guest
            .keys()
            .map(|(kind, code)| {
                let lit = *kind == EV_LED && self.host_leds.contains(*code);
                Event::new(*kind, *code, lit.into())
            })
            .collect()
    }

    /// What to have the device do, now that the driver sent `event`: nothing, unless it is for an LED
    /// or a sound that the device has. Linux drivers send scancodes back, too; and repeat rates
    /// (EV_REP) take effect in the guest, which does the repeating, and would outlast it here.
    pub fn ask(&mut self, event: Event, device: &Description) -> Option<Event> {
        let known = matches!(event.kind, EV_LED | EV_SND) && device.has(event.kind, event.code);
        known.then(|| {
            self.guest.insert((event.kind, event.code), event.value);
            event
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::code::{EV_KEY, EV_MSC, EV_REP};
    use super::*;

    fn keyboard() -> Description {
        let mut device = Description::default();
        device.codes.insert(EV_KEY, [30].into_iter().collect());
        device.codes.insert(EV_MSC, [4].into_iter().collect());
        device.codes.insert(EV_REP, [0, 1].into_iter().collect());
        device.codes.insert(EV_LED, [0, 1].into_iter().collect());
        device.codes.insert(EV_SND, [2].into_iter().collect());
        device
    }

    #[test]
    fn only_leds_and_sounds_of_the_device_pass() {
        let mut status = Status::default();
        let device = keyboard();
        for event in [
            Event::new(EV_LED, 1, 1),
            Event::new(EV_LED, 1, 0),
            Event::new(EV_SND, 2, 440),
        ] {
            assert_eq!(status.ask(event, &device), Some(event));
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
            assert_eq!(status.ask(event, &device), None);
        }
    }

    #[test]
    fn the_host_gets_its_leds_back_and_a_paused_guest_its_own() {
        let mut status = Status::default();
        let device = keyboard();
        assert_eq!(status.begin([0].into_iter().collect()), []);
        status.ask(Event::new(EV_LED, 0, 0), &device);
        status.ask(Event::new(EV_LED, 1, 1), &device);
        status.ask(Event::new(EV_SND, 2, 440), &device);
        let host = [
            Event::new(EV_LED, 0, 1),
            Event::new(EV_LED, 1, 0),
            Event::new(EV_SND, 2, 0),
        ];
        assert_eq!(status.end(), host);
        let guest = [Event::new(EV_LED, 0, 0), Event::new(EV_LED, 1, 1)];
        assert_eq!(status.begin([0].into_iter().collect()), guest);
        status.forget_guest();
        assert_eq!(status.begin([0].into_iter().collect()), []);
        assert_eq!(status.end(), []);
    }
}
