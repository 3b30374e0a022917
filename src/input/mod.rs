// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-input: a virtio input device (virtio 1.2, 5.8) for a guest, with the events of an evdev
//! device of the host, or of programs that make them up.
//!
//! ```text
//! EventSource ── events ──▶ ReportQueue ── reports ──▶ event queue ──▶ driver
//!      ▲
//!      └─ LEDs, sounds ── VirtioInput ◀── status events ── status queue ◀── driver
//!                            │  ▲
//!               ConfigValue  ▼  │  ConfigQuery
//!                      configuration space ◀── select, subsel ── driver
//! ```
//!
//! `device::ownership` decides whether the host or the guest gets the source's events.

mod device;
mod device_info;
mod device_state;
mod protocol;
mod records;
mod report;
mod source;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod testing;
mod virtio_input;

pub use device::{
    GrabControl, GrabControlError, GrabOptions, GrabToggle, GroupError, Input, InputBuildError,
    InputBuilder,
};
pub use device_info::DeviceInfo;
pub use device_state::{Contact, DeviceState, Touch};
pub use protocol::{AbsInfo, Bitmap, DevIds, Event, event_codes};
pub use source::evdev_source::{EvdevAddress, EvdevOpenError, EvdevOptions, EvdevSource};
pub use source::virtual_source::{EVENTS_SOCKET, VirtualDevice, VirtualSource};
pub use source::{EventSource, HostAccess, ReadOutcome, SourceReturn};
