// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device behind vhost-user: routes events and messages to its queues, source and configuration.

mod builder;
mod driver_session;
mod event_queue;
mod hardware_return;
mod key_to_release;
mod owner;
mod ownership;
mod queue_turn;
mod release;
mod service_status;
mod source_link;
mod status_queue;
mod watched_fds;

pub use builder::{InputBuildError, InputBuilder};
pub use release::{GrabControl, GrabControlError, GrabOptions, GrabToggle, GroupError};

use std::io;

use crate::backend::continuity;
use crate::backend::{Device, DeviceContext, EventSet, GuestMemory, Vring};
use crate::input::device_info::kept;
use crate::input::protocol::{EVENT_QUEUE, NUM_QUEUES, STATUS_QUEUE};
use crate::input::source::EventSource;
use crate::input::source::evdev_source::EvdevSource;
use crate::input::virtio_input::VirtioInput;

use driver_session::DriverSession;
use event_queue::EventQueue;
use owner::{Owner, OwnerChange};
use ownership::{Ownership, changing_hands, going_on};
use queue_turn::TurnEnd;
use status_queue::StatusQueue;
use watched_fds::{CLIENTS, GRAB, GROUP, RELEASE, RETURN, SOURCE, TIMER, WAKE};

/// An input device with events from `S`.
pub struct Input<S = EvdevSource> {
    virtio_input: VirtioInput,
    ownership: Ownership<S>,
    memory: GuestMemory,
    event_queue: EventQueue,
    status_queue: StatusQueue,
    /// The device is a predecessor's, and has not gone on yet.
    is_resumed: bool,
}

impl<S: EventSource> Input<S> {
    /// The device with events from `source`: as a predecessor left it, if there was one, or a new one.
    fn new(
        source: S,
        control: GrabControl,
        context: DeviceContext,
    ) -> Result<Self, InputBuildError> {
        let ledger = context.continuity().ledger(continuity::Owner::Device);
        let is_resumed = kept::is_left(source.info(), &ledger)?;
        if !is_resumed {
            kept::put(source.info(), &ledger);
        }
        let virtio_input = VirtioInput::load(source.info(), ledger.clone())?;
        let memory = context.memory().clone();
        let ownership = Ownership::load(source, control, context, ledger.clone())?;
        if is_resumed {
            // What it begins with is no event of a source or driver.
            ownership.fds().wake();
        }
        Ok(Self {
            virtio_input,
            ownership,
            memory,
            event_queue: EventQueue::load(ledger)?,
            status_queue: StatusQueue::default(),
            is_resumed,
        })
    }

    /// Gives the source to the guest once its driver runs, and back to the host when that stops.
    fn update_owner(&mut self, vrings: &[Vring]) {
        let driver = DriverSession::identify(vrings.get(EVENT_QUEUE));
        let change = self.ownership.update(driver, &mut self.virtio_input);
        match change {
            OwnerChange::None => {}
            // The status events that waited for this.
            OwnerChange::GuestStarted => self.execute_status(vrings),
            OwnerChange::GuestStopped => self.event_queue.reset(),
        }
    }

    /// Gives the source back to the host, until the guest's driver runs again.
    fn take_from_guest(&mut self) {
        self.ownership.take_from_guest(&mut self.virtio_input);
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
            self.ownership.fds().wake();
        }
    }
}

impl<S: EventSource> Device for Input<S> {
    const QUEUES: usize = NUM_QUEUES;
    /// Both queues' turns give back each buffer before they take the next.
    const USES_IN_ORDER: bool = true;

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
        self.ownership.fds().wake();
    }

    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        if usize::try_from(index) == Ok(EVENT_QUEUE) {
            self.take_from_guest();
        }
        Ok(())
    }

    fn handle_event(&mut self, event: u16, ready: EventSet, vrings: &[Vring]) -> io::Result<()> {
        going_on::committed(&mut self.ownership);
        if std::mem::take(&mut self.is_resumed) {
            going_on::go_on(&mut self.ownership, &mut self.virtio_input);
        }
        self.update_owner(vrings);
        match event {
            SOURCE => {
                self.ownership.read_source(ready, &mut self.virtio_input);
                self.send_reports(vrings);
            }
            WAKE => {
                self.ownership.fds().woke();
                self.send_reports(vrings);
                self.execute_status(vrings);
            }
            TIMER => {
                changing_hands::timer_rang(&mut self.ownership, &mut self.virtio_input);
                self.send_reports(vrings);
            }
            CLIENTS => self.ownership.accept_client(),
            RETURN => {
                self.ownership.take_return(&mut self.virtio_input);
                self.send_reports(vrings);
            }
            RELEASE | GRAB | GROUP => {
                changing_hands::take_request(&mut self.ownership, event, &mut self.virtio_input);
                self.send_reports(vrings);
            }
            queue if usize::from(queue) == STATUS_QUEUE => self.execute_status(vrings),
            _ => self.send_reports(vrings),
        }
        self.ownership.pace_source(self.virtio_input.reports_mut());
        // What waits for the driver. All is committed now.
        self.virtio_input.reports_mut().record();
        // Never an error, which would end the worker.
        Ok(())
    }

    fn end(&mut self) {
        if going_on::has_successor(&self.ownership) {
            going_on::suspend(&mut self.ownership, &self.virtio_input);
        } else {
            self.take_from_guest();
        }
        self.ownership.shut_down();
    }
}

#[cfg(test)]
mod tests;
