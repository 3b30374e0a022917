//! Who has the evdev device: the host, until a guest runs.

use super::super::source::Source;
use super::super::state::State;
use super::super::wire::EVENT_QUEUE;
use super::held::held;
use super::{Input, pass};
use crate::backend::Vring;

/// Who has the evdev device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The host: no guest runs.
    DeviceContext,
    /// Still the host, where a key is held whose release it has to see.
    HostUntilReleased,
    /// The guest.
    Guest,
}

impl<S: Source> Input<S> {
    /// Gives the device to the guest once it runs, and back to the host once it does not.
    pub(super) fn update_owner(&mut self, vrings: &[Vring]) {
        if self.ended {
            return;
        }
        let ring = pass(vrings, EVENT_QUEUE, &self.memory);
        let untouched = ring.map(|(ring, _)| ring.is_untouched());
        match (self.owner, untouched) {
            (Owner::DeviceContext, Some(anew)) => {
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
            self.give_nothing();
            return;
        }
        if anew {
            self.status.forget_guest();
        }
        self.give_to_guest();
    }

    /// Gives the device to the guest, if no key is held that was pressed for the host. The host
    /// would never see it released, and repeat it for ever.
    pub(super) fn give_to_guest(&mut self) {
        let waited = self.owner == Owner::HostUntilReleased;
        self.owner = Owner::HostUntilReleased;
        // What was read by nobody was meant for the host.
        if let Err(error) = self.discard() {
            self.lose_device(&error, &[]);
            return;
        }
        let mut state = self.read_state();
        if self.options.grab {
            if self.waits_for_release(state.as_ref(), waited) {
                return;
            }
            if let Err(error) = self.source.grab() {
                self.fail(format_args!("cannot grab {}: {error}", self.name()));
                return;
            }
            // A key may have gone down between the look and the grab.
            state = self.read_state();
            if self.waits_for_release(state.as_ref(), waited) {
                self.release();
                return;
            }
        }
        if waited {
            self.end_wait();
        }
        self.owner = Owner::Guest;
        let leds = self.source.leds().unwrap_or_else(|error| {
            self.device_trouble
                .warn(format_args!("cannot read the device's LEDs: {error}"));
            Default::default()
        });
        let wanted = self.status.begin(leds);
        self.write(wanted);
        let slots = self.source.description().slots();
        self.reports
            .begin(state.unwrap_or_else(|| State::new(slots)));
        match self.options.grab {
            true => self.say(format_args!("the guest has {}", self.name())),
            false => self.say(format_args!("the guest and the host share {}", self.name())),
        }
    }

    /// The guest has a device that reports nothing any more, and hears that all was let go.
    pub(super) fn give_nothing(&mut self) {
        self.owner = Owner::Guest;
        self.reports.begin_gone();
    }

    fn waits_for_release(&mut self, state: Option<&State>, waited: bool) -> bool {
        let device = self.source.description();
        let Some(key) = state.and_then(|state| held(state, device)) else {
            return false;
        };
        if !waited {
            let begun = self.long_wait.begin();
            begun.unwrap_or_else(|error| log::debug!("cannot set a timer: {error}"));
        }
        self.say(format_args!(
            "the guest gets {} once {key:?} is released on the host",
            self.name(),
        ));
        true
    }

    /// The device has been kept from the guest for long: not only the service's status says so.
    pub(super) fn waits_long(&mut self) {
        if !self.long_wait.is_long() || self.owner != Owner::HostUntilReleased {
            return;
        }
        let state = self.read_state();
        let device = self.source.description();
        if let Some(key) = state.and_then(|state| held(&state, device)) {
            let name = self.name();
            self.device_trouble.warn(format_args!(
                "the guest does not get {name} until {key:?} is released on the host"
            ));
        }
    }

    pub(super) fn end_wait(&self) {
        let ended = self.long_wait.end();
        ended.unwrap_or_else(|error| log::debug!("cannot stop a timer: {error}"));
    }

    pub(super) fn end_guest(&mut self) {
        match self.owner {
            Owner::DeviceContext => return,
            Owner::HostUntilReleased => self.end_wait(),
            Owner::Guest => self.write(self.status.end()),
        }
        self.owner = Owner::DeviceContext;
        self.event_queue.reset();
        self.reports.end();
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
