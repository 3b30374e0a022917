// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Byte formats of virtio-input (virtio 1.2, 5.8): events, and the configuration space.
//!
//! No other part of `input` reads or writes bytes.

mod bitmap;
mod config_space;
mod event_buffer;
pub mod event_codes;

pub use crate::evdev_event::Event;
pub use bitmap::Bitmap;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use config_space::CONFIG_SIZE;
pub use config_space::{AbsInfo, DevIds};
pub(crate) use config_space::{ConfigQuery, ConfigSpace, ConfigValue};
pub(crate) use event_buffer::{read_event, write_event};

/// Index of the eventq, which carries events to the driver (5.8.2).
pub(crate) const EVENT_QUEUE: usize = 0;
/// Index of the statusq, which carries LEDs and sounds to the device (5.8.2).
pub(crate) const STATUS_QUEUE: usize = 1;
/// Number of virtqueues.
pub(crate) const NUM_QUEUES: usize = 2;
