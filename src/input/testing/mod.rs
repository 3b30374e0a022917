// SPDX-License-Identifier: Apache-2.0 OR MIT
//! For unit tests and for the targets in `fuzz/`: an evdev device without hardware.

mod fake_evdev;

use crate::input::protocol::Event;

pub use fake_evdev::{FakeEvdev, FakeHardware};

/// The bytes of `event` in a driver's buffer.
pub fn event_to_bytes(event: Event) -> [u8; 8] {
    event.to_bytes()
}

/// The event in the bytes of a driver's buffer.
pub fn event_from_bytes(bytes: [u8; 8]) -> Event {
    Event::from_bytes(bytes)
}

/// Size of the configuration space in bytes (virtio 1.2, 5.8.4).
pub const CONFIG_SIZE: usize = crate::input::protocol::CONFIG_SIZE;
