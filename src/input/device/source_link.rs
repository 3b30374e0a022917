// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device's side of its event source: reading, LEDs and grab, with errors logged, and whether the
//! source is gone.

use std::io;
use std::os::fd::BorrowedFd;

use evdev::KeyCode;

use crate::backend::continuity::Ledger;
use crate::backend::{DeviceContext, EventSet, RateLimitedLog};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::{Bitmap, Event};
use crate::input::report::ReportQueue;
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

use super::key_to_release::key_the_host_waits_for;
use super::release::ChordWatch;
use super::watched_fds::{CLIENTS, SOURCE};

/// Most reads of the source in a row. One of evdev returns up to 32 events.
const MAX_READS: usize = 32;

/// An event source, which may be gone for a while or for good.
pub(super) struct SourceLink<S> {
    source: S,
    gone: bool,
    never_returns: bool,
    device_errors: RateLimitedLog,
    chord: ChordWatch,
    /// It is not watched, because the guest has to take reports first.
    is_paused: bool,
    ledger: Ledger,
}

impl<S: EventSource> SourceLink<S> {
    /// The source `source`, on which `chord` may be struck.
    pub(super) fn new(source: S, chord: ChordWatch, ledger: Ledger) -> Self {
        Self {
            chord,
            gone: source.fd().is_none(),
            source,
            never_returns: false,
            is_paused: false,
            device_errors: RateLimitedLog::default(),
            ledger,
        }
    }

    /// Makes valid what was recorded. What was read before is not read again then.
    pub(super) fn commit(&mut self) {
        self.ledger.commit();
        self.committed();
    }

    /// What was recorded so far is valid.
    pub(super) fn committed(&mut self) {
        self.source.committed();
    }

    /// The device as its driver sees it.
    pub(super) fn info(&self) -> &DeviceInfo {
        self.source.info()
    }

    /// How messages name the source.
    pub(super) fn label(&self) -> String {
        self.source.label()
    }

    /// What other programs of the host see of the events.
    pub(super) fn host_access(&self) -> HostAccess {
        self.source.host_access()
    }

    /// Whether the source is gone: the hardware was unplugged.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Readable when a source that is gone may be back; `None` if it never comes back.
    pub(super) fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.return_fd().filter(|_| !self.never_returns)
    }

    /// Its return will not be noticed.
    pub(super) fn set_never_returns(&mut self) {
        self.never_returns = true;
    }

    /// Whether a source that is gone is back; `is_wanted` for a guest at once.
    pub(super) fn take_return(&mut self, is_wanted: bool) -> SourceReturn {
        let answer = self.source.take_return(is_wanted);
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

    /// Stops to wait for events of a source that keeps them while the guest, which has it if `has_guest`, is slow to take
    /// `reports`, and waits again once there is room.
    pub(super) fn pace(&mut self, has_guest: bool, reports: &ReportQueue, context: &DeviceContext) {
        let pauses = has_guest && self.has_to_wait(reports);
        if self.gone || pauses == self.is_paused {
            return;
        }
        if !pauses {
            self.watch(context);
        } else if let Some(fd) = self.source.fd() {
            match context.unwatch(fd) {
                Ok(()) => self.is_paused = true,
                Err(error) => self.cannot_watch(&error, context),
            }
        }
    }

    /// Waits for events of a source that is not watched.
    pub(super) fn watch(&mut self, context: &DeviceContext) {
        let Some(fd) = self.source.fd() else {
            return;
        };
        match context.watch(fd, EventSet::IN, SOURCE) {
            Ok(()) => self.is_paused = false,
            Err(error) => self.cannot_watch(&error, context),
        }
    }

    fn cannot_watch(&self, error: &io::Error, context: &DeviceContext) {
        let label = self.label();
        context.fail(format_args!("cannot wait for events of {label}: {error}"));
    }

    /// The source is gone: waits no more for its events, but for its return, if it can come back.
    pub(super) fn lose(&mut self, context: &DeviceContext) {
        self.gone = true;
        // A source that was paused is not watched.
        let watched = self.source.fd().filter(|_| !self.is_paused);
        let unwatched = watched.map(|fd| context.unwatch(fd));
        if let Some(Err(error)) = unwatched {
            log::debug!("cannot stop watching {}: {error}", self.label());
        }
        self.is_paused = false;
        if self.return_fd().is_some() {
            self.source.await_return();
        }
    }

    /// Whether the next events have to wait in the source until the guest has taken some of `reports`.
    fn has_to_wait(&self, reports: &ReportQueue) -> bool {
        self.source.keeps_events() && !reports.has_room()
    }

    /// Reads and drops the events that the source has, but for the chord among them.
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
                _ => {
                    self.observe_chord(&mut events);
                    self.commit();
                }
            }
        }
        self.find_lost_chord();
        Ok(())
    }

    /// Takes note of the chord among `events`. The commit that makes their read valid makes this valid, too: a successor
    /// does not read them again.
    fn observe_chord(&mut self, events: &mut Vec<Event>) {
        self.chord.observe(events);
        self.chord.put(&self.ledger);
    }

    /// The chord may be among events that were lost.
    fn find_lost_chord(&mut self) {
        if self.chord.lost_events() {
            self.state();
        }
    }

    /// Whether the chord was struck since the last call.
    pub(super) fn take_chord(&mut self) -> bool {
        let struck = self.chord.take_struck();
        // Valid with what follows from it: before that, a successor finds the chord struck.
        self.chord.put(&self.ledger);
        struck
    }

    /// Reads the events that the source has into `reports`, which are to be recorded before the next commit. A report costs one read: only a source
    /// that `hung_up`, or has lost events, is read until it has no more.
    ///
    /// # Errors
    /// If the source is gone.
    pub(super) fn read(&mut self, hung_up: bool, reports: &mut ReportQueue) -> io::Result<()> {
        let mut events = Vec::new();
        for round in 0..MAX_READS {
            if self.has_to_wait(reports) {
                break;
            }
            if round > 0 {
                // The source drops the events of the read before.
                reports.record();
                self.commit();
            }
            events.clear();
            match self.source.read(&mut events) {
                Ok(outcome) => {
                    self.observe_chord(&mut events);
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
        self.find_lost_chord();
        Ok(())
    }

    /// What is pressed, switched and touched now, but for keys that no guest is to see; `None` if that cannot be read.
    pub(super) fn state(&mut self) -> Option<DeviceState> {
        let state = self.source.state();
        let mut state = state
            .inspect_err(|error| {
                self.warn(format_args!("cannot read the device's state: {error}"));
            })
            .ok()?;
        // The kernel takes back the events of keys that it answers for.
        self.chord.resync(&state);
        self.chord.put(&self.ledger);
        self.chord.hide(&mut state);
        Some(state)
    }

    /// The key whose release has to come before the source changes hands, in `state`, which was just read.
    pub(super) fn key_to_release(&self, state: Option<&DeviceState>) -> Option<KeyCode> {
        let state = state?;
        // Whoever gets the source is to see a chord as a whole, or not at all.
        let of_chord = || self.chord.pressed_key();
        key_the_host_waits_for(state, self.source.info()).or_else(of_chord)
    }

    /// Logs that `who` waits for long for the release of `key`, in this `place`.
    pub(super) fn warn_waiting(&mut self, who: &str, key: KeyCode, place: &str) {
        let label = self.label();
        self.warn(format_args!(
            "{who} does not get {label} until {key:?} is released{place}"
        ));
    }

    /// Logs that another process has the source, which the guest was to get.
    pub(super) fn warn_grabbed(&mut self) {
        let label = self.label();
        self.warn(format_args!(
            "{label} is grabbed by another process, perhaps for another VM: the guest gets it by 'vhostctl grab', or when it starts again"
        ));
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
