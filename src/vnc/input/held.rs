// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is pressed, and where the pointer is: the part of a device's state that lasts.

use evdev::AbsoluteAxisCode;

use super::key_set::KeySet;
use crate::evdev_event::{EV_ABS, EV_KEY, Event};

/// Most events of a report that [`Held::changes_to`] makes. The device takes 64.
const MAX_EVENTS: usize = 32;

/// The lasting state of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The keys and buttons that are pressed.
    pub(crate) keys: KeySet,
    /// Where the pointer is (`ABS_X`, `ABS_Y`), once it is known.
    pub(crate) position: Option<(i32, i32)>,
}

impl Held {
    /// Applies an event that the device was sent.
    pub(crate) fn apply(&mut self, event: &Event) {
        let Event { kind, code, value } = *event;
        match (kind, AbsoluteAxisCode(code)) {
            (EV_KEY, _) if value != 0 => self.keys.insert(code),
            (EV_KEY, _) => self.keys.remove(code),
            (EV_ABS, AbsoluteAxisCode::ABS_X) => {
                self.position = Some((value, self.position.unwrap_or_default().1));
            }
            (EV_ABS, AbsoluteAxisCode::ABS_Y) => {
                self.position = Some((self.position.unwrap_or_default().0, value));
            }
            _ => {}
        }
    }

    /// The reports that bring a device from this state to `wanted`: releases, then the pointer's way, then presses.
    pub(crate) fn changes_to(&self, wanted: &Self) -> Vec<Vec<Event>> {
        let mut reports = Vec::new();
        let released = self.keys.without(&wanted.keys);
        let released: Vec<_> = released.iter().map(|key| Event::key(key, false)).collect();
        push_reports(&mut reports, &released);
        let mut rest = self.moves_to(wanted);
        let pressed = wanted.keys.without(&self.keys);
        rest.extend(pressed.iter().map(|key| Event::key(key, true)));
        push_reports(&mut reports, &rest);
        reports
    }

    /// The events that move the pointer from here to where it is in `wanted`, without the end of their report.
    pub(crate) fn moves_to(&self, wanted: &Self) -> Vec<Event> {
        let Some((x, y)) = wanted.position else {
            return Vec::new();
        };
        let before = self.position;
        let mut events = Vec::new();
        if before.is_none_or(|(before, _)| before != x) {
            events.push(Event::new(EV_ABS, AbsoluteAxisCode::ABS_X.0, x));
        }
        if before.is_none_or(|(_, before)| before != y) {
            events.push(Event::new(EV_ABS, AbsoluteAxisCode::ABS_Y.0, y));
        }
        events
    }
}

fn push_reports(reports: &mut Vec<Vec<Event>>, events: &[Event]) {
    for part in events.chunks(MAX_EVENTS) {
        let mut report = part.to_vec();
        report.push(Event::REPORT);
        reports.push(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_one_state_to_the_other() {
        let mut now = Held {
            keys: (1..100).collect(),
            position: Some((7, 8)),
        };
        let wanted = Held {
            keys: (50..200).collect(),
            position: Some((7, 9)),
        };
        let reports = now.changes_to(&wanted);
        assert_eq!(
            reports
                .iter()
                .flatten()
                .filter(|event| event.kind == EV_ABS)
                .count(),
            1
        );
        for report in &reports {
            assert!(report.len() <= 64 && report.last() == Some(&Event::REPORT));
            for event in report {
                now.apply(event);
            }
        }
        assert_eq!(now, wanted);
        assert!(now.changes_to(&wanted).is_empty());
    }

    #[test]
    fn unknown_position_is_told_whole_even_if_it_is_0() {
        let wanted = Held {
            position: Some((0, 0)),
            ..Held::default()
        };
        assert_eq!(Held::default().moves_to(&wanted).len(), 2);
        assert!(wanted.moves_to(&Held::default()).is_empty());
    }
}
