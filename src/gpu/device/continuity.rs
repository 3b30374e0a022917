//! Whether rings that start go on with what a driver set up, or a new driver begins.

use std::sync::atomic::{AtomicBool, Ordering};

/// What tells a guest that was paused from a driver that begins anew.
///
/// A front-end stops the rings alike for both, and says nothing in between. But the rings of a
/// paused guest go on where they stopped, and those of a new driver begin at 0. Where both is the
/// same, for the index has just wrapped around, this tells: a new driver reads the configuration,
/// a paused one does nothing.
#[derive(Default)]
pub(super) struct Continuity {
    stopped: bool,
    /// The control queue's next available index.
    position: u16,
    config_was_read: AtomicBool,
}

impl Continuity {
    /// The rings stop.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        *self.config_was_read.get_mut() = false;
    }

    /// Whether the rings stopped, and it is not known yet who comes.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// It is the same driver.
    pub(super) fn go_on(&mut self) {
        self.stopped = false;
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
        position != self.position || position == 0 && self.config_was_read.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_tells_except_at_0() {
        let mut continuity = Continuity::default();
        continuity.stands_at(700);
        continuity.stop();
        continuity.config_was_read();
        assert!(continuity.is_new_driver(0));
        assert!(!continuity.is_new_driver(700));
        continuity.stands_at(0);
        continuity.stop();
        assert!(!continuity.is_new_driver(0));
        continuity.config_was_read();
        assert!(continuity.is_new_driver(0));
    }
}
