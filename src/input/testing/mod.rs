//! For unit tests and for the targets in `fuzz/`: an evdev device without hardware.

mod fake_evdev;

pub use fake_evdev::{FakeEvdev, FakeHardware};

/// Size of the configuration space in bytes (virtio 1.2, 5.8.4).
pub const CONFIG_SIZE: usize = crate::input::protocol::CONFIG_SIZE;
