//! Whether rings that start go on with what a driver set up, or a new driver begins.

use std::sync::atomic::{AtomicBool, Ordering};

/// What tells a guest that was paused from a driver that begins anew.
///
/// A front-end stops the rings alike for both, and says nothing in between. But the rings of a
/// paused guest go on where they stopped, and those of a new driver begin at 0. Where both is the
/// same, for the index has just wrapped around, this tells: a new driver reads the configuration,
/// a paused one does nothing. A driver that resets a single queue (`VIRTIO_F_RING_RESET`) leaves
/// the other one running.
#[derive(Default)]
pub(super) struct DriverSession {
    control_stopped: bool,
    /// Whether the cursor queue was seen to run since it stopped last.
    cursor_runs: bool,
    /// The control queue's next available index.
    position: u16,
    config_was_read: AtomicBool,
}

impl DriverSession {
    /// The control queue stops, or the cursor queue.
    pub(super) fn stop(&mut self, is_cursor: bool) {
        if is_cursor {
            self.cursor_runs = false;
        } else {
            self.control_stopped = true;
        }
        *self.config_was_read.get_mut() = false;
    }

    /// Whether the control queue stopped, and it is not known yet who comes.
    pub(super) fn is_stopped(&self) -> bool {
        self.control_stopped
    }

    /// It is the same driver.
    pub(super) fn go_on(&mut self) {
        self.control_stopped = false;
    }

    /// The cursor queue runs, and so does the control queue.
    pub(super) fn cursor_runs(&mut self) {
        self.cursor_runs = true;
    }

    /// The control queue's next available index is `position` now.
    pub(super) fn stands_at(&mut self, position: u16) {
        self.position = position;
    }

    /// The configuration is read.
    pub(super) fn config_was_read(&self) {
        self.config_was_read.store(true, Ordering::Relaxed);
    }

    /// Whether it is a new driver whose control queue begins at `position`.
    pub(super) fn is_new_driver(&self, position: u16) -> bool {
        let config_was_read = self.config_was_read.load(Ordering::Relaxed);
        !self.cursor_runs && (position != self.position || position == 0 && config_was_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped_at(position: u16) -> DriverSession {
        let mut continuity = DriverSession::default();
        continuity.stands_at(position);
        continuity.cursor_runs();
        continuity.stop(false);
        continuity.stop(true);
        continuity
    }

    #[test]
    fn the_position_tells_except_at_0() {
        let continuity = stopped_at(700);
        continuity.config_was_read();
        assert!(continuity.is_new_driver(0));
        assert!(!continuity.is_new_driver(700));
        let continuity = stopped_at(0);
        assert!(!continuity.is_new_driver(0));
        continuity.config_was_read();
        assert!(continuity.is_new_driver(0));
    }

    #[test]
    fn a_reset_of_one_queue_is_no_new_driver() {
        let mut continuity = DriverSession::default();
        continuity.stands_at(700);
        continuity.stop(true);
        continuity.cursor_runs();
        continuity.stop(false);
        continuity.config_was_read();
        assert!(!continuity.is_new_driver(0));
    }
}
