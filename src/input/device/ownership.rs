// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who has the source's events: the host, until a guest runs. Here the device is grabbed, given back to
//! the host, also because the host asks for it, and found to be unplugged and to be back. After an unplug,
//! [`ReportQueue::release_all`](crate::input::report::ReportQueue::release_all) releases its keys in the
//! guest; [`ReportQueue::device_returned`](crate::input::report::ReportQueue::device_returned) brings the guest to the
//! state in which it comes back.

pub(super) mod changing_hands;
pub(super) mod going_on;

use std::cell::Cell;
use std::io;

use evdev::KeyCode;
use rustix::io::Errno;

use crate::backend::continuity::Ledger;
use crate::backend::{DeviceContext, EventSet};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::Event;
use crate::input::report::ReportQueue;
use crate::input::source::{EventSource, HostAccess};
use crate::input::virtio_input::VirtioInput;

use super::builder::InputBuildError;
use super::driver_session::DriverSession;
use super::hardware_return::{HardwareReturn, Taken};
use super::owner::{Owner, OwnerChange};
use super::release::{GrabControl, HostRequests};
use super::service_status::InputStatus;
use super::source_link::SourceLink;
use super::watched_fds::WatchedFds;
use going_on::KeptOwnership;

/// The source and its owner.
pub(super) struct Ownership<S> {
    source: SourceLink<S>,
    owner: Owner,
    service_status: InputStatus,
    /// The program around the device, which is told if the source is gone.
    context: DeviceContext,
    /// The program is about to exit: no guest gets the source any more.
    is_shut_down: bool,
    /// What became of a source that was gone.
    hardware_return: HardwareReturn,
    /// The guest had the source when it came back, and has the reports that were meant for it until it gets it again.
    continues: bool,
    /// The host has the source, and is to get its LEDs back.
    gives_back: bool,
    /// A predecessor's guest has the source, and its driver's queues are not set up again yet.
    awaits_driver: bool,
    /// A predecessor's guest was told that the source is gone.
    was_gone: bool,
    ledger: Ledger,
    recorded: Cell<Option<KeptOwnership>>,
    fds: WatchedFds,
    /// What the host asks for while a guest runs.
    requests: HostRequests,
}

impl<S: EventSource> Ownership<S> {
    /// The source `source` with the owner that the records say; the host where there are none.
    ///
    /// # Errors
    /// Those of [`EventSource::listen`] and [`DeviceContext::watch`], and if the records are invalid.
    pub(super) fn load(
        source: S,
        control: GrabControl,
        context: DeviceContext,
        ledger: Ledger,
    ) -> Result<Self, InputBuildError> {
        let kept = KeptOwnership::load(&ledger)?;
        let label = source.label();
        let setup = |error| InputBuildError::setup(&label, error);
        let requests = HostRequests::load(control, &context, &ledger)?.map_err(setup)?;
        let fds = WatchedFds::new(&context, source.fd(), source.return_fd()).map_err(setup)?;
        let chord = requests.chord_watch(&ledger)?;
        let mut source = SourceLink::new(source, chord, ledger.clone());
        source.listen(&context).map_err(setup)?;
        let service_status = InputStatus::new(context.clone());
        if source.is_gone() {
            service_status.publish_gone(&source.label(), None);
        }
        Ok(Self {
            source,
            owner: kept.owner,
            service_status,
            context,
            is_shut_down: false,
            hardware_return: HardwareReturn::load(kept.has_returned),
            continues: kept.continues,
            gives_back: kept.gives_back,
            awaits_driver: kept.owner != Owner::Host,
            was_gone: kept.is_gone,
            ledger,
            recorded: Cell::new(None),
            fds,
            requests,
        })
    }

    /// What the worker waits on for the device.
    pub(super) fn fds(&self) -> &WatchedFds {
        &self.fds
    }

    /// Who has the source's events.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// How messages name the source.
    pub(super) fn label(&self) -> String {
        self.source.label()
    }

    /// The device as its driver sees it.
    pub(super) fn info(&self) -> &DeviceInfo {
        self.source.info()
    }

    /// Gives the source to the guest once its driver runs, and back to the host when that stops.
    pub(super) fn update(
        &mut self,
        driver: DriverSession,
        virtio_input: &mut VirtioInput,
    ) -> OwnerChange {
        if self.is_shut_down {
            return OwnerChange::None;
        }
        self.awaits_driver &= driver == DriverSession::Stopped;
        match (self.owner, driver) {
            _ if self.awaits_driver => OwnerChange::None,
            (Owner::Host, DriverSession::New | DriverSession::Same) => {
                self.guest_started(driver, virtio_input);
                going_on::put(self);
                OwnerChange::GuestStarted
            }
            (owner, DriverSession::Stopped) if owner != Owner::Host => {
                self.take_from_guest(virtio_input);
                OwnerChange::GuestStopped
            }
            _ => OwnerChange::None,
        }
    }

    /// Handles readiness of the source: passes events to the guest, or discards them while the host
    /// owns it.
    pub(super) fn read_source(&mut self, happened: EventSet, virtio_input: &mut VirtioInput) {
        if self.source.is_gone() {
            return;
        }
        let hung_up = happened.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let read = match self.owner {
            Owner::Host | Owner::Released => self.source.discard(),
            Owner::Releasing => {
                let read = self.source.discard();
                read.map(|()| changing_hands::release_once_up(self, true))
            }
            Owner::HostUntilReleased => {
                self.give_to_guest(virtio_input);
                Ok(())
            }
            Owner::Guest => self.source.read(hung_up, virtio_input.reports_mut()),
        };
        match read {
            Err(error) => self.lose_source(&error, virtio_input),
            // The event would come for ever from a source that says so and does not fail reads.
            Ok(()) if hung_up => self.lose_source(&Errno::NODEV.into(), virtio_input),
            Ok(()) => {}
        }
        changing_hands::follow_chord(self, virtio_input);
        going_on::put(self);
    }

    /// Accepts a program that waits to send events.
    pub(super) fn accept_client(&mut self) {
        self.source.accept();
    }

    /// Waits for events of a source that keeps them only while there is room for `reports`.
    pub(super) fn pace_source(&mut self, reports: &ReportQueue) {
        let has_guest = self.owner == Owner::Guest;
        self.source.pace(has_guest, reports, &self.context);
    }

    /// Sends the source LED and sound events that the guest set, if it has the source.
    pub(super) fn send_status(&mut self, status: Vec<Event>) {
        if self.owner == Owner::Guest {
            self.source.send(status);
        }
    }

    /// The host gets the source back, with the LEDs it had: the guest stopped, or reset the device.
    pub(super) fn take_from_guest(&mut self, virtio_input: &mut VirtioInput) {
        match self.owner {
            Owner::Host => return,
            Owner::HostUntilReleased | Owner::Releasing | Owner::Released => {
                self.fds.stop_timer();
                virtio_input.reports_mut().guest_lost_device();
            }
            Owner::Guest => {
                virtio_input.guest_lost_device();
                self.gives_back = true;
            }
        }
        self.owner = Owner::Host;
        self.continues = false;
        self.awaits_driver = false;
        going_on::put(self);
        // A successor that finds the source the guest's takes it for grabbed.
        self.source.commit();
        going_on::give_back(self, virtio_input);
        changing_hands::publish_host(self);
    }

    /// Records who has the source.
    fn record(&self) {
        going_on::put(self);
    }

    /// The program exits: no guest gets the source any more.
    pub(super) fn shut_down(&mut self) {
        self.is_shut_down = true;
    }

    fn guest_started(&mut self, driver: DriverSession, virtio_input: &mut VirtioInput) {
        if driver == DriverSession::New {
            virtio_input.forget_driver();
            self.requests.driver_started();
        }
        if self.requests.host_keeps() {
            changing_hands::leave_to_host(self, virtio_input);
            changing_hands::publish_host(self);
        } else if !self.source.is_gone() {
            self.give_to_guest(virtio_input);
        } else {
            self.give_gone_source(virtio_input);
        }
        if self.source.is_gone() {
            // Said before, perhaps to no front-end.
            self.publish_gone();
        }
    }

    /// Gives the source to the guest, unless a key is pressed that the host would never see released.
    fn give_to_guest(&mut self, virtio_input: &mut VirtioInput) {
        let waited = self.owner == Owner::HostUntilReleased;
        self.continues |= self.owner == Owner::Guest;
        self.owner = Owner::HostUntilReleased;
        going_on::put(self);
        // Events that nobody has read were meant for the host.
        if let Err(error) = self.source.discard() {
            self.lose_source(&error, virtio_input);
            return;
        }
        let mut state = self.source.state();
        let host_access = self.source.host_access();
        if host_access == HostAccess::UntilGrab {
            if self.waits_for_release(state.as_ref(), waited) {
                return;
            }
            if let Err(error) = self.source.grab() {
                self.cannot_grab(&error, virtio_input);
                return;
            }
            // A key may have been pressed after the state was read and before the grab.
            state = self.source.state();
            if self.waits_for_release(state.as_ref(), waited) {
                self.source.ungrab();
                return;
            }
        }
        if waited {
            self.fds.stop_timer();
        }
        self.hand_over(state, virtio_input);
    }

    /// Tells the guest, which has the source from now on, in which state it is.
    fn hand_over(&mut self, state: Option<DeviceState>, virtio_input: &mut VirtioInput) {
        self.owner = Owner::Guest;
        self.requests.grabbed();
        let host_leds = self.source.leds();
        let state = state.unwrap_or_else(|| DeviceState::new(self.source.info().slots()));
        let leds = if std::mem::take(&mut self.continues) {
            virtio_input.device_returned(state, host_leds)
        } else {
            virtio_input.guest_got_device(state, host_leds)
        };
        going_on::put(self);
        // First: a successor would take these LEDs for the host's.
        self.source.commit();
        self.source.send(leds);
        let label = self.source.label();
        let host_access = self.source.host_access();
        self.service_status.publish_guest(&label, host_access);
    }

    /// The source may be gone again, or another process was faster when it came back.
    fn cannot_grab(&mut self, error: &io::Error, virtio_input: &mut VirtioInput) {
        let label = self.source.label();
        let is_waited_for = self.hardware_return.may_come_again(&self.source);
        match Errno::from_io_error(error) {
            Some(Errno::NODEV) => self.lose_source(error, virtio_input),
            _ if error.kind() == io::ErrorKind::ResourceBusy
                && (self.requests.is_asked_for() || !is_waited_for) =>
            {
                changing_hands::leave_to_other(self, virtio_input);
            }
            _ if error.kind() == io::ErrorKind::ResourceBusy => {
                self.source.warn(format_args!(
                    "{label} is grabbed by another process, and waited for"
                ));
                self.drop_source(virtio_input);
                self.hardware_return
                    .refuse("another process has grabbed it".into());
                self.publish_gone();
            }
            _ => self
                .context
                .fail(format_args!("cannot grab {label}: {error}")),
        }
    }

    /// Gives the guest a source that reports nothing any more.
    fn give_gone_source(&mut self, virtio_input: &mut VirtioInput) {
        self.owner = Owner::Guest;
        self.release_all(virtio_input);
    }

    /// Tells a guest that does not have the source that everything is released.
    fn release_all(&mut self, virtio_input: &mut VirtioInput) {
        if std::mem::take(&mut self.continues) {
            virtio_input.source_gone();
        } else {
            virtio_input.guest_got_gone_device();
        }
    }

    /// Whether the guest has to wait until the host sees a key released. `waited` says that it does
    /// already.
    fn waits_for_release(&self, state: Option<&DeviceState>, waited: bool) -> bool {
        let key = self.key_to_wait_for(state, waited);
        if let Some(key) = key {
            let label = self.source.label();
            self.service_status.publish_waiting(&label, key);
        }
        key.is_some()
    }

    /// The key in `state` whose release has to come before the source changes hands. A long wait is logged; `waited` says
    /// that it has begun already.
    fn key_to_wait_for(&self, state: Option<&DeviceState>, waited: bool) -> Option<KeyCode> {
        let key = self.source.key_to_release(state)?;
        if !waited {
            self.fds.begin_long_wait();
        }
        Some(key)
    }

    /// The source is gone, and a guest that has it, or waits for it, is told that everything is
    /// released.
    fn lose_source(&mut self, error: &io::Error, virtio_input: &mut VirtioInput) {
        if self.source.is_gone() {
            return;
        }
        self.drop_source(virtio_input);
        let label = self.source.label();
        let is_awaited = self.source.return_fd().is_some();
        self.context
            .lose_hardware(format_args!("{label} was unplugged: {error}"), is_awaited);
        self.publish_gone();
    }

    /// From now on the source is gone, and waited for if it can come back.
    fn drop_source(&mut self, virtio_input: &mut VirtioInput) {
        match self.owner {
            Owner::Host => {}
            Owner::HostUntilReleased => {
                self.fds.stop_timer();
                self.give_gone_source(virtio_input);
            }
            Owner::Guest => virtio_input.source_gone(),
            Owner::Releasing | Owner::Released => {
                self.fds.stop_timer();
                self.owner = Owner::Released;
            }
        }
        self.source.lose(&self.context);
        self.hardware_return.begin();
    }

    fn publish_gone(&self) {
        let is_released = self.requests.host_keeps();
        self.hardware_return
            .publish(&self.source, &self.service_status, is_released);
    }

    /// Takes a source that is back, and gives it to the guest that had it.
    pub(super) fn take_return(&mut self, virtio_input: &mut VirtioInput) {
        let is_wanted = match self.owner {
            Owner::Guest | Owner::HostUntilReleased => true,
            Owner::Released => !self.requests.host_keeps(),
            Owner::Host | Owner::Releasing => false,
        };
        let source = &mut self.source;
        let taken = self.hardware_return.take(source, &self.context, is_wanted);
        match taken {
            Taken::Back => {}
            Taken::News if self.source.is_gone() => return self.publish_gone(),
            Taken::News | Taken::Nothing => return,
        }
        match self.owner {
            Owner::Guest => self.give_to_guest(virtio_input),
            Owner::Released if !self.requests.host_keeps() => {
                changing_hands::grab_again(self, virtio_input);
            }
            Owner::Host | Owner::HostUntilReleased | Owner::Releasing | Owner::Released => {
                changing_hands::publish_host(self);
            }
        }
        going_on::put(self);
    }
}
