//! Who has the source's events: the host, until a guest runs. Here the device is grabbed, released to
//! the host, and found to be unplugged and to be back. After an unplug,
//! [`ReportQueue::release_all`](crate::input::report::ReportQueue::release_all) releases its keys in the
//! guest; [`ReportQueue::device_returned`](crate::input::report::ReportQueue::device_returned) brings the guest to the
//! state in which it comes back.

use std::io;

use rustix::io::Errno;
use rustix::time::Timespec;

use crate::backend::{DeviceContext, EventSet};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::Event;
use crate::input::report::ReportQueue;
use crate::input::source::{EventSource, HostAccess, SourceReturn};
use crate::input::virtio_input::VirtioInput;

use super::driver_session::DriverSession;
use super::key_to_release::key_the_host_waits_for;
use super::service_status::InputStatus;
use super::source_link::SourceLink;
use super::watched_fds::{SOURCE, WatchedFds};

/// A guest's wait for the host to release a key is logged if it takes longer than this.
const LONG_WAIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Who has the source's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The host: no guest runs.
    Host,
    /// Still the host, although a guest runs: a key is pressed whose release the host has to see.
    HostUntilReleased,
    /// The guest.
    Guest,
}

/// How [`Ownership::update`] changed the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerChange {
    /// Not at all.
    None,
    /// A guest started to run. It has the source, or waits for it.
    GuestStarted,
    /// The guest stopped. The host has the source.
    GuestStopped,
}

/// The source and its owner.
pub(super) struct Ownership<S> {
    source: SourceLink<S>,
    owner: Owner,
    service_status: InputStatus,
    /// The program around the device, which is told if the source is gone.
    context: DeviceContext,
    /// The program is about to exit: no guest gets the source any more.
    is_shut_down: bool,
    /// The source is not watched, because the guest has to take reports first.
    is_source_paused: bool,
    /// Why what came instead of a source that is gone cannot be used.
    refusal: Option<String>,
    /// The source was gone, and is back: it may be so again.
    has_returned: bool,
    /// The guest had the source when it came back, and has the reports that were meant for it until it gets it again.
    continues: bool,
}

impl<S: EventSource> Ownership<S> {
    /// The source `source`, which the host has.
    ///
    /// # Errors
    /// Those of [`EventSource::listen`].
    pub(super) fn new(source: S, context: DeviceContext) -> io::Result<Self> {
        let mut source = SourceLink::new(source);
        source.listen(&context)?;
        let service_status = InputStatus::new(context.clone());
        if source.is_gone() {
            service_status.publish_gone(&source.label(), None);
        }
        Ok(Self {
            source,
            owner: Owner::Host,
            service_status,
            context,
            is_shut_down: false,
            is_source_paused: false,
            refusal: None,
            has_returned: false,
            continues: false,
        })
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
        fds: &WatchedFds,
    ) -> OwnerChange {
        if self.is_shut_down {
            return OwnerChange::None;
        }
        match (self.owner, driver) {
            (Owner::Host, DriverSession::New | DriverSession::Same) => {
                self.guest_started(driver, virtio_input, fds);
                OwnerChange::GuestStarted
            }
            (Owner::HostUntilReleased | Owner::Guest, DriverSession::Stopped) => {
                self.take_from_guest(virtio_input, fds);
                OwnerChange::GuestStopped
            }
            _ => OwnerChange::None,
        }
    }

    /// Handles readiness of the source: passes events to the guest, or discards them while the host
    /// owns it.
    pub(super) fn read_source(
        &mut self,
        happened: EventSet,
        virtio_input: &mut VirtioInput,
        fds: &WatchedFds,
    ) {
        if self.source.is_gone() {
            return;
        }
        let hung_up = happened.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let read = match self.owner {
            Owner::Host => self.source.discard(),
            Owner::HostUntilReleased => {
                self.give_to_guest(virtio_input, fds);
                Ok(())
            }
            Owner::Guest => self.source.read(hung_up, virtio_input.reports_mut()),
        };
        match read {
            Err(error) => self.lose_source(&error, virtio_input, fds),
            // The event would come for ever from a source that says so and does not fail reads.
            Ok(()) if hung_up => self.lose_source(&Errno::NODEV.into(), virtio_input, fds),
            Ok(()) => {}
        }
    }

    /// Accepts a program that waits to send events.
    pub(super) fn accept_client(&mut self) {
        self.source.accept();
    }

    /// Stops to wait for events of a source that keeps them while the guest is slow to take `reports`, and waits
    /// again once there is room.
    pub(super) fn pace_source(&mut self, reports: &ReportQueue) {
        let pauses = self.owner == Owner::Guest && self.source.has_to_wait(reports);
        let fd = match self.source.fd() {
            Some(fd) if !self.source.is_gone() && pauses != self.is_source_paused => fd,
            _ => return,
        };
        let changed = if pauses {
            self.context.unwatch(fd)
        } else {
            self.context.watch(fd, EventSet::IN, SOURCE)
        };
        match changed {
            Ok(()) => self.is_source_paused = pauses,
            Err(error) => {
                let label = self.source.label();
                self.context
                    .fail(format_args!("cannot wait for events of {label}: {error}"));
            }
        }
    }

    /// Sends the source LED and sound events that the guest set, if it has the source.
    pub(super) fn send_status(&mut self, status: Vec<Event>) {
        if self.owner == Owner::Guest {
            self.source.send(status);
        }
    }

    /// The guest waits for long: says so in the log, not only in the service's status.
    pub(super) fn timer_rang(&mut self, fds: &WatchedFds) {
        if !fds.timer_rang() || self.owner != Owner::HostUntilReleased {
            return;
        }
        let state = self.source.state();
        let info = self.source.info();
        if let Some(key) = state.and_then(|state| key_the_host_waits_for(&state, info)) {
            let label = self.source.label();
            self.source.warn(format_args!(
                "the guest does not get {label} until {key:?} is released on the host"
            ));
        }
    }

    /// The host gets the source back, with the LEDs it had: the guest stopped, or reset the device.
    pub(super) fn take_from_guest(&mut self, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        match self.owner {
            Owner::Host => return,
            Owner::HostUntilReleased => {
                fds.set_timer(None);
                virtio_input.reports_mut().guest_lost_device();
            }
            Owner::Guest => self.source.send(virtio_input.guest_lost_device()),
        }
        self.owner = Owner::Host;
        self.continues = false;
        self.source.ungrab();
        // The status of a source that is gone says so, and stays.
        if !self.source.is_gone() {
            self.service_status.publish_no_guest(&self.source.label());
        }
    }

    /// The program exits: no guest gets the source any more.
    pub(super) fn shut_down(&mut self) {
        self.is_shut_down = true;
    }

    fn guest_started(
        &mut self,
        driver: DriverSession,
        virtio_input: &mut VirtioInput,
        fds: &WatchedFds,
    ) {
        if driver == DriverSession::New {
            virtio_input.forget_driver();
        }
        if self.source.is_gone() {
            self.give_gone_source(virtio_input);
            // Said before, perhaps to no front-end.
            self.publish_gone();
            return;
        }
        self.give_to_guest(virtio_input, fds);
    }

    /// Gives the source to the guest, unless a key is pressed that the host would never see released.
    fn give_to_guest(&mut self, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        let waited = self.owner == Owner::HostUntilReleased;
        self.continues |= self.owner == Owner::Guest;
        self.owner = Owner::HostUntilReleased;
        // Events that nobody has read were meant for the host.
        if let Err(error) = self.source.discard() {
            self.lose_source(&error, virtio_input, fds);
            return;
        }
        let mut state = self.source.state();
        let host_access = self.source.host_access();
        if host_access == HostAccess::UntilGrab {
            if self.waits_for_release(state.as_ref(), waited, fds) {
                return;
            }
            if let Err(error) = self.source.grab() {
                self.cannot_grab(&error, virtio_input, fds);
                return;
            }
            // A key may have been pressed after the state was read and before the grab.
            state = self.source.state();
            if self.waits_for_release(state.as_ref(), waited, fds) {
                self.source.ungrab();
                return;
            }
        }
        if waited {
            fds.set_timer(None);
        }
        self.owner = Owner::Guest;
        let host_leds = self.source.leds();
        let state = state.unwrap_or_else(|| DeviceState::new(self.source.info().slots()));
        let leds = if std::mem::take(&mut self.continues) {
            virtio_input.device_returned(state, host_leds)
        } else {
            virtio_input.guest_got_device(state, host_leds)
        };
        self.source.send(leds);
        let label = self.source.label();
        self.service_status.publish_guest(&label, host_access);
    }

    /// The source may be gone again, or another process was faster when it came back.
    fn cannot_grab(&mut self, error: &io::Error, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        let label = self.source.label();
        let is_waited_for = self.has_returned && self.source.return_fd().is_some();
        match Errno::from_io_error(error) {
            Some(Errno::NODEV) => self.lose_source(error, virtio_input, fds),
            _ if error.kind() == io::ErrorKind::ResourceBusy && is_waited_for => {
                self.source.warn(format_args!(
                    "{label} is grabbed by another process, and waited for"
                ));
                self.drop_source(virtio_input, fds);
                self.refusal = Some("another process has grabbed it".into());
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
        if std::mem::take(&mut self.continues) {
            virtio_input.source_gone();
        } else {
            virtio_input.guest_got_gone_device();
        }
    }

    /// Whether the guest has to wait until the host sees a key released. `waited` says that it does
    /// already.
    fn waits_for_release(
        &self,
        state: Option<&DeviceState>,
        waited: bool,
        fds: &WatchedFds,
    ) -> bool {
        let info = self.source.info();
        let Some(key) = state.and_then(|state| key_the_host_waits_for(state, info)) else {
            return false;
        };
        if !waited {
            fds.set_timer(Some(LONG_WAIT));
        }
        self.service_status
            .publish_waiting(&self.source.label(), key);
        true
    }

    /// The source is gone, and a guest that has it, or waits for it, is told that everything is
    /// released.
    fn lose_source(&mut self, error: &io::Error, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        if self.source.is_gone() {
            return;
        }
        self.drop_source(virtio_input, fds);
        let label = self.source.label();
        self.context
            .lose_hardware(format_args!("{label} was unplugged: {error}"));
        self.publish_gone();
    }

    /// From now on the source is gone, and waited for if it can come back.
    fn drop_source(&mut self, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        self.source.set_gone();
        let label = self.source.label();
        match self.owner {
            Owner::Host => {}
            Owner::HostUntilReleased => {
                fds.set_timer(None);
                self.give_gone_source(virtio_input);
            }
            Owner::Guest => virtio_input.source_gone(),
        }
        // A source that was paused is not watched.
        let watched = self.source.fd().filter(|_| !self.is_source_paused);
        let unwatched = watched.map(|fd| self.context.unwatch(fd));
        if let Some(Err(error)) = unwatched {
            log::debug!("cannot stop watching {label}: {error}");
        }
        self.is_source_paused = false;
        if self.source.return_fd().is_some() {
            self.source.await_return();
        }
        self.refusal = None;
    }

    fn publish_gone(&self) {
        let label = self.source.label();
        match self.source.return_fd() {
            Some(_) => self
                .service_status
                .publish_gone(&label, self.refusal.as_deref()),
            None => self.service_status.publish_gone_for_good(&label),
        }
    }

    /// Takes a source that is back, and gives it to the guest that had it.
    pub(super) fn take_return(&mut self, virtio_input: &mut VirtioInput, fds: &WatchedFds) {
        let label = self.source.label();
        match self.source.take_return() {
            SourceReturn::NotYet => {}
            SourceReturn::Back => {
                let watched = self
                    .source
                    .fd()
                    .map(|fd| self.context.watch(fd, EventSet::IN, SOURCE));
                if let Some(Err(error)) = watched {
                    self.context
                        .fail(format_args!("cannot wait for events of {label}: {error}"));
                    return;
                }
                self.has_returned = true;
                self.refusal = None;
                self.source.inform(format_args!("{label} is back"));
                match self.owner {
                    Owner::Guest => self.give_to_guest(virtio_input, fds),
                    Owner::Host | Owner::HostUntilReleased => {
                        self.service_status.publish_no_guest(&label);
                    }
                }
            }
            SourceReturn::Refused(why) => {
                // What is tried again and again is said once.
                if self.refusal.as_ref() != Some(&why) {
                    self.source.warn(format_args!("waiting for {label}: {why}"));
                    self.refusal = Some(why);
                    self.publish_gone();
                }
            }
            SourceReturn::Never(why) => {
                if let Some(fd) = self.source.return_fd() {
                    let unwatched = self.context.unwatch(fd);
                    unwatched.unwrap_or_else(|error| log::debug!("cannot stop watching: {error}"));
                }
                self.source.set_never_returns();
                log::error!("{label} will not be noticed when it comes back: {why}");
                if self.source.is_gone() {
                    self.publish_gone();
                }
            }
        }
    }
}
