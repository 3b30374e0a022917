//! The device: its two queues, and the evdev device behind them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::EventfdFlags;
use rustix::io::Errno;

use crate::backend::{
    Device, DeviceBuilder, DeviceContext, EventSet, FIRST_TOKEN, GuestMemory, QueuePass,
    RateLimitedLog, SandboxPolicy, VirtqueueError, Vring,
};

use super::config::Config;
use super::queue::{EventQueue, Pass, StatusQueue};
use super::report::Reports;
use super::sandbox_policy;
use super::source::{Evdev, OpenError, Source};
use super::state::State;
use super::status::Status;
use super::wire::{EVENT_QUEUE, Event, QUEUES, STATUS_QUEUE};

use self::held::LongWait;
use self::owner::Owner;

mod held;
mod owner;

/// The evdev device has events.
const DEVICE_READY: u16 = FIRST_TOKEN;
/// A pass ended before its queue was empty.
const GO_ON: u16 = FIRST_TOKEN + 1;
/// The guest has waited for long until a key is released on the host.
const LONG_WAIT: u16 = FIRST_TOKEN + 2;
/// Reads of the evdev device in a pass, of 32 events each.
const MAX_READS: usize = 32;

/// What the program was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device, `/dev/input/event*` or a link to one.
    pub evdev_path: PathBuf,
    /// Whether the host does not see the device's events while a guest has it.
    pub grab: bool,
}

/// A vhost-user-input device.
pub struct Input<S = Evdev> {
    source: S,
    options: Options,
    config: Config,
    memory: GuestMemory,
    host: DeviceContext,
    go_on: OwnedFd,
    owner: Owner,
    long_wait: LongWait,
    reports: Reports,
    status: Status,
    event_queue: EventQueue,
    status_queue: StatusQueue,
    /// The hardware is gone: a guest has a device that reports nothing.
    gone: bool,
    /// The program is about to end: no guest gets the device any more.
    ended: bool,
    ring_trouble: RateLimitedLog,
    device_trouble: RateLimitedLog,
    dropped_reports: RateLimitedLog,
}

/// An evdev device that is open, to make a device of.
pub struct InputBuilder<S = Evdev> {
    source: S,
    options: Options,
}

impl InputBuilder<Evdev> {
    /// Opens the evdev device and finds out all about it.
    ///
    /// # Errors
    /// Where there is no such device, the user may not use it, or it is to be grabbed and another
    /// process does so.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let path = &options.evdev_path;
        let mut source = Evdev::open(path)?;
        if options.grab {
            // The guest gets it later; this is to fail now if it cannot be had at all.
            let tried = source.grab().and_then(|()| source.release());
            tried.map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => OpenError::Grabbed(path.clone()),
                _ => OpenError::Io {
                    path: path.clone(),
                    error,
                },
            })?;
        }
        Ok(Self::new(source, options))
    }
}

impl<S: Source> InputBuilder<S> {
    pub(super) fn new(source: S, options: Options) -> Self {
        Self { source, options }
    }
}

impl<S: Source> DeviceBuilder for InputBuilder<S> {
    type Device = Input<S>;
    type Error = io::Error;

    fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy()
    }

    fn build(self, context: DeviceContext) -> io::Result<Input<S>> {
        Input::new(self.source, self.options, context)
    }
}

impl<S: Source> Input<S> {
    fn new(source: S, options: Options, host: DeviceContext) -> io::Result<Self> {
        let go_on = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let long_wait = LongWait::new()?;
        host.watch(source.fd(), EventSet::IN, DEVICE_READY)?;
        host.watch(go_on.as_fd(), EventSet::IN, GO_ON)?;
        host.watch(long_wait.as_fd(), EventSet::IN, LONG_WAIT)?;
        let reports = Reports::new(source.description());
        Ok(Self {
            source,
            options,
            config: Config::default(),
            memory: host.memory().clone(),
            host,
            go_on,
            owner: Owner::DeviceContext,
            long_wait,
            reports,
            status: Status::default(),
            event_queue: EventQueue::default(),
            status_queue: StatusQueue::default(),
            gone: false,
            ended: false,
            ring_trouble: RateLimitedLog::default(),
            device_trouble: RateLimitedLog::default(),
            dropped_reports: RateLimitedLog::default(),
        })
    }

    /// Reads what the device has and forgets it.
    fn discard(&mut self) -> io::Result<()> {
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

    fn read_state(&mut self) -> Option<State> {
        self.source
            .state()
            .inspect_err(|error| {
                self.device_trouble
                    .warn(format_args!("cannot read the device's state: {error}"));
            })
            .ok()
    }

    /// The device has events, or is gone.
    fn read_device(&mut self, happened: EventSet, vrings: &[Vring]) {
        if self.gone {
            // It was found to be gone as the guest began, which is to hear of it.
            self.give_reports(vrings);
            return;
        }
        let ends = happened.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let read = match self.owner {
            Owner::DeviceContext => self.discard(),
            Owner::HostUntilReleased => {
                self.give_to_guest();
                Ok(())
            }
            Owner::Guest => self.read_reports(ends),
        };
        match read {
            Err(error) => self.lose_device(&error, vrings),
            // A device that says so without failing reads would have this called for ever.
            Ok(()) if ends => {
                self.lose_device(&Errno::NODEV.into(), vrings);
            }
            Ok(()) => self.give_reports(vrings),
        }
    }

    /// Reads what there is. A report costs one read: only a device that `ends`, or has lost events,
    /// is asked until it says that there are no more.
    fn read_reports(&mut self, ends: bool) -> io::Result<()> {
        let mut events = Vec::new();
        for _ in 0..MAX_READS {
            events.clear();
            match self.source.read(&mut events) {
                Ok(more) => {
                    self.reports.take(&events);
                    if !more {
                        self.reports.caught_up();
                        if !ends && !self.reports.lost() {
                            break;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reports.caught_up();
                    // Only now: what the kernel still had was older than the state it tells.
                    if self.reports.lost() {
                        let state = self.read_state();
                        self.reports.recover(state);
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The device is gone: a guest is not left with keys down, and hears no more of it.
    fn lose_device(&mut self, error: &io::Error, vrings: &[Vring]) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        if let Err(error) = self.host.unwatch(self.source.fd()) {
            log::debug!("cannot stop watching {}: {error}", self.name());
        }
        match self.owner {
            Owner::DeviceContext => {}
            Owner::HostUntilReleased => {
                self.end_wait();
                self.give_nothing();
            }
            Owner::Guest => self.reports.gone(),
        }
        self.give_reports(vrings);
        self.host
            .lose_hardware(format_args!("{} was unplugged: {error}", self.name()));
    }

    /// Puts into the event queue what the driver has buffers for.
    fn give_reports(&mut self, vrings: &[Vring]) {
        if self.owner != Owner::Guest {
            return;
        }
        if let Some((ring, vring)) = pass(vrings, EVENT_QUEUE, &self.memory) {
            let given = self.event_queue.give(ring, &mut self.reports);
            self.settle(given, vring, "event");
        }
        let dropped = self.reports.take_dropped();
        if dropped > 0 {
            self.dropped_reports.warn(format_args!(
                "dropped {dropped} of the reports of {}, because the guest or this host is too slow; the guest will be told the state that the device is in",
                self.name()
            ));
        }
    }

    /// Does what the driver asked for in the status queue, while the device is the guest's; while it is
    /// still the host's, the guest's wishes are kept. What the driver asks for in a queue that outlives
    /// the event queue waits for that.
    fn take_status(&mut self, vrings: &[Vring]) {
        if self.owner == Owner::DeviceContext {
            return;
        }
        if let Some((ring, vring)) = pass(vrings, STATUS_QUEUE, &self.memory) {
            let mut wanted = Vec::new();
            let device = self.source.description();
            let taken = self
                .status_queue
                .take(ring, &mut self.status, device, &mut wanted);
            if self.owner == Owner::Guest {
                self.write(wanted);
            }
            self.settle(taken, vring, "status");
        }
    }

    /// Has the device do `events`.
    fn write(&mut self, mut events: Vec<Event>) {
        if events.is_empty() || self.gone {
            return;
        }
        events.push(Event::REPORT);
        if let Err(error) = self.source.write(&events) {
            self.device_trouble
                .warn(format_args!("cannot set LEDs of {}: {error}", self.name()));
        }
    }

    /// After a pass over the queue `queue`: goes on later where it is not finished.
    fn settle(&mut self, pass: Result<Pass, VirtqueueError>, vring: &Vring, queue: &str) {
        match pass {
            Ok(Pass::Done) => {}
            Ok(Pass::Unfinished) => self.call_back(),
            Err(error) => {
                vring.report_error();
                self.ring_trouble
                    .warn(format_args!("the {queue} queue cannot be used: {error}"));
            }
        }
    }

    /// Has both queues looked at again.
    fn call_back(&self) {
        if let Err(error) = rustix::io::write(&self.go_on, &1u64.to_ne_bytes()) {
            // Only when it is set already, more than 2^64 times.
            log::debug!("cannot call back: {error}");
        }
    }

    fn name(&self) -> String {
        format!(
            "{} ({})",
            self.options.evdev_path.display(),
            self.source.description().name
        )
    }

    /// Says in the service's status who has the device: not in the journal, which a guest that
    /// resets its device over and over would fill.
    fn say(&self, text: std::fmt::Arguments<'_>) {
        // That the device is gone was said, and stays so.
        if !self.gone {
            self.host.status(text);
        }
    }

    fn fail(&self, message: std::fmt::Arguments<'_>) {
        self.host.fail(message);
    }
}

/// A pass over the queue `index`, where it may be used.
fn pass<'a>(
    vrings: &'a [Vring],
    index: usize,
    memory: &GuestMemory,
) -> Option<(QueuePass<'a>, &'a Vring)> {
    let vring = vrings.get(index)?;
    Some((QueuePass::begin(vring, memory)?, vring))
}

impl<S: Source> Device for Input<S> {
    const QUEUES: usize = QUEUES;

    fn reset_device(&mut self) {
        self.end_guest();
        self.config = Config::default();
        self.status = Status::default();
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.config.read(self.source.description(), offset, size)
    }

    fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        // Never an error, which would end the connection: other front-ends than QEMU may pass on
        // whatever a guest writes.
        self.config.write(offset, data);
        Ok(())
    }

    fn memory_changed(&mut self) {
        // What did not lie in the memory may do so now, and nobody kicks for it again.
        self.call_back();
    }

    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        if usize::try_from(index) == Ok(EVENT_QUEUE) {
            self.end_guest();
        }
        Ok(())
    }

    fn handle_event(&mut self, event: u16, happened: EventSet, vrings: &[Vring]) -> io::Result<()> {
        self.update_owner(vrings);
        match event {
            DEVICE_READY => self.read_device(happened, vrings),
            GO_ON => {
                // Only tells that there is more; how often it was said does not matter.
                let _ = rustix::io::read(&self.go_on, &mut [0; 8]);
                self.give_reports(vrings);
                self.take_status(vrings);
            }
            LONG_WAIT => {
                self.waits_long();
                self.give_reports(vrings);
            }
            queue if usize::from(queue) == STATUS_QUEUE => self.take_status(vrings),
            _ => self.give_reports(vrings),
        }
        // An error would end the worker, and nothing that a guest does may.
        Ok(())
    }

    fn end(&mut self) {
        self.end_guest();
        self.ended = true;
    }
}

#[cfg(test)]
mod tests;
