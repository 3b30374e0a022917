//! Who has the evdev device: the host, until a guest runs.

use evdev::KeyCode;
use vhost_user_backend::VringMutex;

use super::super::source::Source;
use super::super::state::State;
use super::super::wire::EVENT_QUEUE;
use super::{Input, pass};

/// Who has the evdev device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The host: no guest runs.
    Host,
    /// Still the host, where a key is held whose release it has to see.
    HostUntilReleased,
    /// The guest.
    Guest,
}

impl<S: Source> Input<S> {
    /// Gives the device to the guest once it runs, and back to the host once it does not.
    pub(super) fn update_owner(&mut self, vrings: &[VringMutex]) {
        let ring = pass(vrings, EVENT_QUEUE, self.memory.as_ref());
        let untouched = ring.map(|ring| ring.is_untouched());
        match (self.owner, untouched) {
            (Owner::Host, Some(anew)) => {
                self.begin_guest(anew);
                // What waited for it.
                self.take_status(vrings);
            }
            (Owner::HostUntilReleased | Owner::Guest, None) => self.end_guest(),
            _ => {}
        }
    }

    fn begin_guest(&mut self, anew: bool) {
        if self.gone {
            return;
        }
        let leds = self.source.leds().unwrap_or_else(|error| {
            self.device_trouble
                .warn(format_args!("cannot read the device's LEDs: {error}"));
            Default::default()
        });
        let again = self.status.begin(leds, anew);
        self.write(again);
        self.give_to_guest();
    }

    /// Gives the device to the guest, if no key is held that was pressed for the host. The host
    /// would never see it released, and repeat it for ever.
    pub(super) fn give_to_guest(&mut self) {
        self.owner = Owner::HostUntilReleased;
        // What was read by nobody was meant for the host.
        if let Err(error) = self.discard() {
            self.lose_device(&error, &[]);
            return;
        }
        let mut state = self.read_state();
        if self.options.grab {
            if self.waits_for_release(state.as_ref()) {
                return;
            }
            if let Err(error) = self.source.grab() {
                self.fail(format_args!("cannot grab {}: {error}", self.name()));
                return;
            }
            // A key may have gone down between the look and the grab.
            state = self.read_state();
            if self.waits_for_release(state.as_ref()) {
                self.release();
                return;
            }
        }
        self.owner = Owner::Guest;
        let slots = self.source.description().slots();
        self.reports
            .begin(state.unwrap_or_else(|| State::new(slots)));
        match self.options.grab {
            true => self.say(format_args!("the guest has {}", self.name())),
            false => self.say(format_args!("the guest and the host share {}", self.name())),
        }
    }

    fn waits_for_release(&self, state: Option<&State>) -> bool {
        let held = state.and_then(|state| state.keys.iter().find(|key| is_momentary(*key)));
        if let Some(key) = held {
            self.say(format_args!(
                "the guest gets {} once {:?} is released on the host",
                self.name(),
                KeyCode(key)
            ));
        }
        held.is_some()
    }

    pub(super) fn end_guest(&mut self) {
        if self.owner == Owner::Host {
            return;
        }
        self.owner = Owner::Host;
        self.event_queue.reset();
        self.reports.end();
        self.write(self.status.end());
        self.release();
        self.say(format_args!("no guest uses {}", self.name()));
    }

    fn release(&mut self) {
        if let Err(error) = self.source.release()
            && !self.gone
        {
            self.device_trouble.warn(format_args!(
                "cannot give {} back to the host: {error}",
                self.name()
            ));
        }
    }
}

/// Whether `key` is one that is held for a moment. Buttons of joysticks may be switches that stay:
/// nobody repeats them, and a wait for their release would not end.
fn is_momentary(key: u16) -> bool {
    let joystick = KeyCode::BTN_TRIGGER.0..=KeyCode::BTN_THUMBR.0;
    let more = KeyCode::BTN_TRIGGER_HAPPY1.0..=KeyCode::BTN_TRIGGER_HAPPY40.0;
    !joystick.contains(&key) && !more.contains(&key)
}
