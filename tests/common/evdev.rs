// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A mock evdev device of the host.

use std::path::Path;
use std::time::Duration;

use frontend::input::Event;
use frontend::{Command, DEFAULT_LIMIT};
use harness::mock::MockInput;

/// A plain keyboard with three LEDs.
pub(crate) const KEYBOARD: &str =
    "name Test Keyboard\nid 0003 046d c31c 0110\nkey 1-88\nmsc 4\nled 0-2\nrep\n";

/// A mock of one evdev device, at [`HostDevice::path`] to programs of [`HostDevice::command`].
pub(crate) struct HostDevice(MockInput);

impl HostDevice {
    /// A device of this description, in the text form of [`harness::mock`].
    pub(crate) fn new(description: &str) -> Self {
        Self(MockInput::start(&[description]).unwrap())
    }

    /// Where a program sees the device.
    pub(crate) fn path(&self) -> String {
        self.0.path(0)
    }

    /// A program on the device.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_beside(program)
            .arg(format!("--evdev-path={}", self.path()))
    }

    /// A program that sees the device, and has not been told of it.
    pub(crate) fn command_beside(&self, program: impl AsRef<Path>) -> Command {
        let command = Command::new(program);
        let environment = self.0.environment();
        environment
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Has the device send events, in one piece.
    pub(crate) fn send(&mut self, events: &[Event]) {
        let events: Vec<_> = events.iter().map(|e| (e.kind, e.code, e.value)).collect();
        self.0.send(0, &events).unwrap();
    }

    /// Has the device send events, and waits until it is in the state that they make.
    pub(crate) fn set(&mut self, events: &[Event]) {
        self.send(events);
        self.0.sync(0).unwrap();
    }

    /// Takes the device away, as pulling its plug does.
    pub(crate) fn unplug(&mut self) {
        self.0.unplug(0).unwrap();
    }

    /// Forgets what was done to it so far.
    pub(crate) fn forget(&mut self) {
        self.0.sync(0).unwrap();
        self.0.forget();
    }

    /// Waits until a program grabs the device, or lets it go.
    pub(crate) fn wait_grab(&mut self, grabbed: bool) {
        self.0.wait_grab(0, grabbed, DEFAULT_LIMIT).unwrap();
    }

    /// Whether a program has grabbed the device since this was waited for last.
    pub(crate) fn was_grabbed(&mut self) -> bool {
        let soon = Duration::from_millis(50);
        self.0.wait_grab(0, true, soon).is_ok()
    }

    /// Waits until a program sets an LED.
    pub(crate) fn wait_led(&mut self, code: u16, value: i32) {
        self.0.wait_led(0, code, value != 0, DEFAULT_LIMIT).unwrap();
    }
}
