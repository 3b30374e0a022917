//! The device behind vhost-user: routes events and messages to its queues, source and configuration.

mod builder;
mod driver_session;
mod event_queue;
mod key_to_release;
mod ownership;
mod queue_turn;
mod service_status;
mod source_link;
mod status_queue;
mod watched_fds;

pub use builder::{InputBuildError, InputBuilder};

use std::io;

use crate::backend::{Device, DeviceContext, EventSet, GuestMemory, Vring};
use crate::input::protocol::{EVENT_QUEUE, NUM_QUEUES, STATUS_QUEUE};
use crate::input::source::EventSource;
use crate::input::source::evdev_source::EvdevSource;
use crate::input::virtio_input::VirtioInput;

use driver_session::DriverSession;
use event_queue::EventQueue;
use ownership::{Owner, OwnerChange, Ownership};
use queue_turn::TurnEnd;
use status_queue::StatusQueue;
use watched_fds::{CLIENTS, RETURN, SOURCE, TIMER, WAKE, WatchedFds};

/// An input device with events from `S`.
pub struct Input<S = EvdevSource> {
    virtio_input: VirtioInput,
    ownership: Ownership<S>,
    fds: WatchedFds,
    memory: GuestMemory,
    event_queue: EventQueue,
    status_queue: StatusQueue,
}

impl<S: EventSource> Input<S> {
    fn new(source: S, context: DeviceContext) -> io::Result<Self> {
        Ok(Self {
            virtio_input: VirtioInput::new(source.info()),
            fds: WatchedFds::new(&context, source.fd(), source.return_fd())?,
            memory: context.memory().clone(),
            ownership: Ownership::new(source, context)?,
            event_queue: EventQueue::default(),
            status_queue: StatusQueue::default(),
        })
    }

    /// Gives the source to the guest once its driver runs, and back to the host when that stops.
    fn update_owner(&mut self, vrings: &[Vring]) {
        let driver = DriverSession::identify(vrings.get(EVENT_QUEUE));
        let change = self
            .ownership
            .update(driver, &mut self.virtio_input, &self.fds);
        match change {
            OwnerChange::None => {}
            // The status events that waited for this.
            OwnerChange::GuestStarted => self.execute_status(vrings),
            OwnerChange::GuestStopped => self.event_queue.reset(),
        }
    }

    /// Gives the source back to the host, until the guest's driver runs again.
    fn take_from_guest(&mut self) {
        self.ownership
            .take_from_guest(&mut self.virtio_input, &self.fds);
        self.event_queue.reset();
        self.ownership.pace_source(self.virtio_input.reports_mut());
    }

    /// Sends the driver the reports that it has buffers for.
    fn send_reports(&mut self, vrings: &[Vring]) {
        // A guest that waits for a source that is back is told what was released when it was gone.
        if self.ownership.owner() == Owner::Host {
            return;
        }
        let reports = self.virtio_input.reports_mut();
        if let Some(vring) = vrings.get(EVENT_QUEUE) {
            let end = self.event_queue.send_reports(vring, &self.memory, reports);
            self.continue_later(end);
        }
        let dropped = self.virtio_input.reports_mut().take_dropped();
        if dropped > 0 {
            self.event_queue
                .warn_dropped(dropped, &self.ownership.label());
        }
    }

    /// Executes the driver's status events, unless the host has the source: they then wait in the queue.
    /// Those of a guest that waits for the source take effect once it gets it.
    fn execute_status(&mut self, vrings: &[Vring]) {
        if self.ownership.owner() == Owner::Host {
            return;
        }
        if let Some(vring) = vrings.get(STATUS_QUEUE) {
            let mut accepted = Vec::new();
            let info = self.ownership.info();
            let end = self
                .status_queue
                .take_status_events(vring, &self.memory, |event| {
                    accepted.extend(self.virtio_input.execute_status(event, info));
                });
            self.ownership.send_status(accepted);
            self.continue_later(end);
        }
    }

    /// Wakes the device to serve both queues again, if a turn ended early.
    fn continue_later(&self, end: TurnEnd) {
        if end == TurnEnd::Unfinished {
            self.fds.wake();
        }
    }
}

impl<S: EventSource> Device for Input<S> {
    const QUEUES: usize = NUM_QUEUES;

    fn reset_device(&mut self) {
        self.take_from_guest();
        self.virtio_input.reset();
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.virtio_input
            .read_config(self.ownership.info(), offset, size)
    }

    fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        // Never an error, which would end the connection: front-ends other than QEMU may pass on
        // whatever a guest writes.
        self.virtio_input.write_config(offset, data);
        Ok(())
    }

    fn memory_changed(&mut self) {
        // Buffers that were outside the old memory may be inside the new one, and no kick follows.
        self.fds.wake();
    }

    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        if usize::try_from(index) == Ok(EVENT_QUEUE) {
            self.take_from_guest();
        }
        Ok(())
    }

    fn handle_event(&mut self, event: u16, ready: EventSet, vrings: &[Vring]) -> io::Result<()> {
        self.update_owner(vrings);
        match event {
            SOURCE => {
                self.ownership
                    .read_source(ready, &mut self.virtio_input, &self.fds);
                self.send_reports(vrings);
            }
            WAKE => {
                self.fds.woke();
                self.send_reports(vrings);
                self.execute_status(vrings);
            }
            TIMER => {
                self.ownership.timer_rang(&self.fds);
                self.send_reports(vrings);
            }
            CLIENTS => self.ownership.accept_client(),
            RETURN => {
                self.ownership
                    .take_return(&mut self.virtio_input, &self.fds);
                self.send_reports(vrings);
            }
            queue if usize::from(queue) == STATUS_QUEUE => self.execute_status(vrings),
            _ => self.send_reports(vrings),
        }
        self.ownership.pace_source(self.virtio_input.reports_mut());
        // Never an error, which would end the worker.
        Ok(())
    }

    fn end(&mut self) {
        self.take_from_guest();
        self.ownership.shut_down();
    }
}

#[cfg(test)]
mod tests;
