// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells a resumed driver from a new one after the virtqueues were stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{CONTROL_QUEUE, CURSOR_QUEUE};
use crate::backend::Vring;
use crate::gpu::kept_state::DriverRecord;

/// Whose the virtqueues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// Nobody's: the control queue is stopped, so its next driver is not known yet.
    Stopped,
    /// The same as before.
    Same,
    /// The same as before, with a control queue that it began anew (`VIRTIO_F_RING_RESET`): what waits is of the old one.
    SameWithNewQueue,
    /// A new one: what the last one set up is to be dropped.
    New,
}

/// The time from a driver's start to its end, across stops of its virtqueues.
///
/// A front-end stops the virtqueues in the same way if the guest is paused and if its driver ends, and
/// says nothing in between. But the virtqueues of a paused guest go on where they stopped, and those of a
/// new driver start at index 0. If the index was 0 before too, because it wrapped around just then, this
/// tells: a new driver reads the configuration, a paused one does nothing. A driver that resets a single
/// queue (`VIRTIO_F_RING_RESET`) leaves the other one running.
#[derive(Default)]
pub(super) struct DriverSession {
    control_stopped: bool,
    /// Whether the cursor queue was seen to run since it was stopped last.
    cursor_runs: bool,
    /// The control queue's next available index.
    position: u16,
    config_was_read: AtomicBool,
}

impl DriverSession {
    /// As a predecessor left it. Its control queue is at `position` if it runs.
    pub(super) fn resume(record: &DriverRecord, position: u16) -> Self {
        Self {
            control_stopped: record.control_stopped,
            cursor_runs: record.cursor_runs,
            position: match record.control_stopped {
                true => record.position,
                false => position,
            },
            config_was_read: AtomicBool::new(record.config_was_read),
        }
    }

    /// What is kept of it for a successor is in `record` from now on. Where the control queue is, as long as it runs, the
    /// virtqueue itself records.
    pub(super) fn record(&self, record: &mut DriverRecord) {
        record.control_stopped = self.control_stopped;
        record.cursor_runs = self.cursor_runs;
        record.position = match self.control_stopped {
            true => self.position,
            false => 0,
        };
        record.config_was_read = self.config_was_read.load(Ordering::Relaxed);
    }

    /// The control queue was stopped, or the cursor queue.
    pub(super) fn stop(&mut self, is_cursor: bool) {
        if is_cursor {
            self.cursor_runs = false;
        } else {
            self.control_stopped = true;
        }
        *self.config_was_read.get_mut() = false;
    }

    /// Whether the control queue was stopped, and whose it is next is not known yet.
    pub(super) fn is_stopped(&self) -> bool {
        self.control_stopped
    }

    /// Finds out whose the virtqueues are before they are served.
    pub(super) fn identify(&mut self, vrings: &[Vring]) -> Driver {
        let mut driver = Driver::Same;
        if self.control_stopped {
            let control = vrings.get(usize::from(CONTROL_QUEUE));
            let Some(control) = control.filter(|vring| vring.is_usable()) else {
                return Driver::Stopped;
            };
            let position = control.next_available();
            driver = self.driver_at(position);
            match driver {
                Driver::New => {
                    log::debug!("a new driver begins");
                    *self = Self::default();
                }
                Driver::Same | Driver::SameWithNewQueue | Driver::Stopped => {
                    log::debug!("the driver goes on");
                    self.control_stopped = false;
                }
            }
        }
        let cursor = vrings.get(usize::from(CURSOR_QUEUE));
        if cursor.is_some_and(Vring::is_usable) {
            self.cursor_runs = true;
        }
        driver
    }

    /// The control queue's next available index is `position` now.
    pub(super) fn control_at(&mut self, position: u16) {
        self.position = position;
    }

    /// The configuration was read.
    pub(super) fn config_was_read(&self) {
        self.config_was_read.store(true, Ordering::Relaxed);
    }

    /// Whose control queue starts at `position`.
    fn driver_at(&self, position: u16) -> Driver {
        let config_was_read = self.config_was_read.load(Ordering::Relaxed);
        let is_other = position != self.position;
        if !self.cursor_runs && (is_other || position == 0 && config_was_read) {
            return Driver::New;
        }
        match is_other {
            true => Driver::SameWithNewQueue,
            false => Driver::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped_at(position: u16) -> DriverSession {
        let mut session = DriverSession::default();
        session.control_at(position);
        session.cursor_runs = true;
        session.stop(false);
        session.stop(true);
        session
    }

    #[test]
    fn position_tells_except_at_0() {
        let session = stopped_at(700);
        session.config_was_read();
        assert_eq!(session.driver_at(0), Driver::New);
        assert_eq!(session.driver_at(700), Driver::Same);
        let session = stopped_at(0);
        assert_eq!(session.driver_at(0), Driver::Same);
        session.config_was_read();
        assert_eq!(session.driver_at(0), Driver::New);
    }

    #[test]
    fn reset_of_one_queue_is_not_a_new_driver() {
        let mut session = DriverSession::default();
        session.control_at(700);
        session.stop(true);
        session.cursor_runs = true;
        session.stop(false);
        session.config_was_read();
        assert_eq!(session.driver_at(0), Driver::SameWithNewQueue);
        assert_eq!(session.driver_at(700), Driver::Same);
    }
}
