//! The device's side of its event source: reading, LEDs and grab, with errors logged, and whether the
//! source is gone.

use std::io;
use std::os::fd::BorrowedFd;

use crate::backend::{DeviceContext, RateLimitedLog};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::{Bitmap, Event};
use crate::input::report::ReportQueue;
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

use super::watched_fds::CLIENTS;

/// Most reads of the source in a row. One of evdev returns up to 32 events.
const MAX_READS: usize = 32;

/// An event source, which may be gone for a while or for good.
pub(super) struct SourceLink<S> {
    source: S,
    gone: bool,
    never_returns: bool,
    device_errors: RateLimitedLog,
}

impl<S: EventSource> SourceLink<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            gone: source.fd().is_none(),
            source,
            never_returns: false,
            device_errors: RateLimitedLog::default(),
        }
    }

    /// The device as its driver sees it.
    pub(super) fn info(&self) -> &DeviceInfo {
        self.source.info()
    }

    /// How messages name the source.
    pub(super) fn label(&self) -> String {
        self.source.label()
    }

    /// Readable while the source has events; `None` while it is gone.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.fd()
    }

    /// What other programs of the host see of the events.
    pub(super) fn host_access(&self) -> HostAccess {
        self.source.host_access()
    }

    /// Whether the source is gone: the hardware was unplugged.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The source is gone.
    pub(super) fn set_gone(&mut self) {
        self.gone = true;
    }

    /// Readable when a source that is gone may be back; `None` if it never comes back.
    pub(super) fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.return_fd().filter(|_| !self.never_returns)
    }

    /// Its return will not be noticed.
    pub(super) fn set_never_returns(&mut self) {
        self.never_returns = true;
    }

    /// Begins to wait for a source that is gone.
    pub(super) fn await_return(&mut self) {
        self.source.await_return();
    }

    /// Whether a source that is gone is back.
    pub(super) fn take_return(&mut self) -> SourceReturn {
        let answer = self.source.take_return();
        if answer == SourceReturn::Back {
            self.gone = false;
        }
        answer
    }

    /// Begins to listen for programs that send events: see [`EventSource::listen`].
    pub(super) fn listen(&mut self, context: &DeviceContext) -> io::Result<()> {
        self.source.listen(context, CLIENTS)
    }

    /// Accepts a program that waits, if one does.
    pub(super) fn accept(&mut self) {
        self.source.accept();
    }

    /// Whether the next events have to wait in the source until the guest has taken some of `reports`.
    pub(super) fn has_to_wait(&self, reports: &ReportQueue) -> bool {
        self.source.keeps_events() && !reports.has_room()
    }

    /// Reads and drops the events that the source has.
    ///
    /// # Errors
    /// If the source is gone.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        for _ in 0..MAX_READS {
            events.clear();
            match self.source.read(&mut events) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the events that the source has into `reports`. A report costs one read: only a source
    /// that `hung_up`, or has lost events, is read until it has no more.
    ///
    /// # Errors
    /// If the source is gone.
    pub(super) fn read(&mut self, hung_up: bool, reports: &mut ReportQueue) -> io::Result<()> {
        let mut events = Vec::new();
        for _ in 0..MAX_READS {
            if self.has_to_wait(reports) {
                break;
            }
            events.clear();
            match self.source.read(&mut events) {
                Ok(outcome) => {
                    reports.push_events(&events);
                    if outcome == ReadOutcome::Drained {
                        reports.caught_up();
                        if !hung_up && !reports.is_out_of_sync() {
                            break;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    reports.caught_up();
                    // Not before: events that were still queued are older than the state.
                    if reports.is_out_of_sync() {
                        reports.recover(self.state());
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is pressed, switched and touched now; `None` if that cannot be read.
    pub(super) fn state(&mut self) -> Option<DeviceState> {
        let state = self.source.state();
        state
            .inspect_err(|error| {
                self.warn(format_args!("cannot read the device's state: {error}"));
            })
            .ok()
    }

    /// The LEDs that are on; none if that cannot be read.
    pub(super) fn leds(&mut self) -> Bitmap {
        let leds = self.source.leds();
        leds.inspect_err(|error| {
            self.warn(format_args!("cannot read the device's LEDs: {error}"));
        })
        .unwrap_or_default()
    }

    /// Sends LED and sound events, of a source that is not gone.
    pub(super) fn send(&mut self, mut events: Vec<Event>) {
        if events.is_empty() || self.gone {
            return;
        }
        events.push(Event::REPORT);
        if let Err(error) = self.source.send(&events) {
            let label = self.label();
            self.warn(format_args!("cannot set LEDs of {label}: {error}"));
        }
    }

    /// Keeps the events from other programs of the host.
    ///
    /// # Errors
    /// Those of [`EventSource::grab`].
    pub(super) fn grab(&mut self) -> io::Result<()> {
        self.source.grab()
    }

    /// Gives the events back to other programs of the host.
    pub(super) fn ungrab(&mut self) {
        match self.source.ungrab() {
            Err(error) if !self.gone => {
                let label = self.label();
                self.warn(format_args!(
                    "cannot give {label} back to the host: {error}"
                ));
            }
            _ => {}
        }
    }

    /// Logs news of the source, which may come and go all the time.
    pub(super) fn inform(&mut self, message: std::fmt::Arguments<'_>) {
        self.device_errors.info(message);
    }

    /// Logs a warning that the source causes.
    pub(super) fn warn(&mut self, message: std::fmt::Arguments<'_>) {
        self.device_errors.warn(message);
    }
}
