// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-input device by values: no virtqueues, no bytes, no access to the source.

mod config_query;
mod leds_and_sounds;

use crate::backend::continuity::{Ledger, RecordKey};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::{Bitmap, ConfigSpace, Event};
use crate::input::records::{RecordError, tables};
use crate::input::report::ReportQueue;

use leds_and_sounds::LedsAndSounds;

/// A virtio-input device: it answers configuration queries, executes status events and queues reports.
#[derive(Debug)]
pub(crate) struct VirtioInput {
    config: ConfigSpace,
    leds_and_sounds: LedsAndSounds,
    reports: ReportQueue,
    ledger: Ledger,
}

const CONFIG: RecordKey = RecordKey::new(tables::CONFIG, 0);

impl VirtioInput {
    /// The device `info` as the records say. Where there are none, no driver has used it yet.
    ///
    /// # Errors
    /// If the records cannot be of such a device.
    pub(crate) fn load(info: &DeviceInfo, ledger: Ledger) -> Result<Self, RecordError> {
        let query = ledger.read(CONFIG, |value| value.array())?;
        let config = query.map_or_else(ConfigSpace::default, ConfigSpace::with_query);
        Ok(Self {
            config,
            leds_and_sounds: LedsAndSounds::load(ledger.clone())?,
            reports: ReportQueue::load(info, ledger.clone())?,
            ledger,
        })
    }

    /// Resets the device (virtio 1.2, 2.4), which the guest does not have now. The state that the guest
    /// was told is kept: see [`Self::guest_got_device`].
    pub(crate) fn reset(&mut self) {
        self.config = ConfigSpace::default();
        self.ledger.put(CONFIG, &self.config.query_bytes());
        self.leds_and_sounds.reset();
    }

    /// Writes `data` to the configuration space at `offset`: see [`ConfigSpace::write`].
    pub(crate) fn write_config(&mut self, offset: u32, data: &[u8]) {
        self.config.write(offset, data);
        self.ledger.put(CONFIG, &self.config.query_bytes());
    }

    /// Reads `size` bytes of the configuration space at `offset`, with the answer of the device `info` to
    /// the driver's query: see [`ConfigSpace::read`].
    pub(crate) fn read_config(&self, info: &DeviceInfo, offset: u32, size: u32) -> Vec<u8> {
        let query = self.config.query();
        let value = query.and_then(|query| config_query::answer(info, query));
        self.config.read(value, offset, size)
    }

    /// Executes a status event of the driver. Returns the event to send to the device `info`, if any.
    pub(crate) fn execute_status(&mut self, event: Event, info: &DeviceInfo) -> Option<Event> {
        self.leds_and_sounds.set(event, info)
    }

    /// The LEDs and sounds that the guest set last, for a device that may have missed some.
    pub(crate) fn leds_and_sounds(&self) -> Vec<Event> {
        self.leds_and_sounds.of_guest()
    }

    /// The events that restore the host's LEDs, and end the guest's sounds.
    pub(crate) fn host_leds(&self) -> Vec<Event> {
        self.leds_and_sounds.guest_lost_device()
    }

    /// Forgets the LEDs and sounds of the last driver, because a new one runs.
    pub(crate) fn forget_driver(&mut self) {
        self.leds_and_sounds.forget_guest();
    }

    /// The guest gets the device, which is in the state `device_state` and of which `host_leds` are on.
    /// The guest is told all of that state. Returns the LED events to send to the device.
    pub(crate) fn guest_got_device(
        &mut self,
        device_state: DeviceState,
        host_leds: Bitmap,
    ) -> Vec<Event> {
        self.reports.guest_got_device(device_state);
        self.leds_and_sounds.guest_got_device(host_leds)
    }

    /// The device that was gone is back in the state `device_state`, while the guest has it; `host_leds` are on. The
    /// guest is told what differs from what it knows. Returns the LED events to send to the device.
    pub(crate) fn device_returned(
        &mut self,
        device_state: DeviceState,
        host_leds: Bitmap,
    ) -> Vec<Event> {
        self.reports.device_returned(device_state);
        self.leds_and_sounds.guest_got_device(host_leds)
    }

    /// The guest gets a device that is gone and reports nothing any more. The guest is told that
    /// everything is released.
    pub(crate) fn guest_got_gone_device(&mut self) {
        self.reports.guest_got_gone_device();
    }

    /// The device is gone while the guest has it. The guest is told that everything is released.
    pub(crate) fn source_gone(&mut self) {
        self.reports.release_all();
    }

    /// The guest no longer has the device. [`Self::host_leds`] are to be sent to it.
    pub(crate) fn guest_lost_device(&mut self) {
        self.reports.guest_lost_device();
    }

    /// The reports for the guest.
    pub(crate) fn reports_mut(&mut self) -> &mut ReportQueue {
        &mut self.reports
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::{EV_KEY, EV_LED};

    use super::*;

    const CFG_ID_NAME: u8 = 0x01;

    fn keyboard() -> DeviceInfo {
        let mut info = DeviceInfo {
            name: "Keyboard".into(),
            ..DeviceInfo::default()
        };
        info.codes.insert(EV_KEY, [30].into_iter().collect());
        info.codes.insert(EV_LED, [0, 1].into_iter().collect());
        info
    }

    fn sent(virtio_input: &mut VirtioInput) -> Vec<Event> {
        let reports = virtio_input.reports_mut();
        let mut sent = Vec::new();
        while reports.next_report().is_some() {
            sent.extend(reports.next_events(1));
            reports.sent(1);
        }
        sent
    }

    #[test]
    fn query_is_answered_in_the_configuration_space_until_a_reset() {
        let info = keyboard();
        let mut virtio_input = VirtioInput::load(&info, Ledger::default()).unwrap();
        virtio_input.write_config(0, &[CFG_ID_NAME, 0]);
        let config = virtio_input.read_config(&info, 0, 16);
        assert_eq!(config[..3], [CFG_ID_NAME, 0, 8]);
        assert_eq!(&config[8..], b"Keyboard");
        virtio_input.reset();
        assert_eq!(virtio_input.read_config(&info, 0, 16), [0; 16]);
    }

    #[test]
    fn guest_is_told_the_state_and_the_host_gets_its_leds_back() {
        let info = keyboard();
        let mut virtio_input = VirtioInput::load(&info, Ledger::default()).unwrap();
        let on = Event::new(EV_LED, 1, 1);
        assert_eq!(virtio_input.execute_status(on, &info), Some(on));
        let mut state = DeviceState::new(0);
        state.keys.set(30, true);
        let pressed = Event::new(EV_KEY, 30, 1);
        let host_leds = [0].into_iter().collect();
        assert_eq!(virtio_input.guest_got_device(state, host_leds), [on]);
        assert_eq!(sent(&mut virtio_input), [pressed, Event::REPORT]);
        virtio_input.guest_lost_device();
        assert_eq!(virtio_input.host_leds(), [Event::new(EV_LED, 1, 0)]);
        virtio_input.guest_got_gone_device();
        let released = Event::new(EV_KEY, 30, 0);
        assert_eq!(sent(&mut virtio_input), [released, Event::REPORT]);
    }
}
