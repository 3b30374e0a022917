// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Scanouts and cursors: what the displays show, and what each of them has not been sent yet.
//!
//! [`Scanouts`] holds what is the same for all displays: the source of each scanout, its damage that
//! the driver has not flushed, and the cursors. For each display there is a `DisplayState`: what that
//! display was told last, and what it is still to be sent. A flush goes to all of them, and each
//! display takes its updates when it can send them ([`Scanouts::pending_updates`]).
//!
//! Nothing here grows while a display does not read: regions are kept, not messages.
//!
//! A scanout that a display shows by a dmabuf has no pixels to send. Its flushed damage waits until
//! the renderer has drawn it, and then until the front-end has answered the update before it.

mod cursor;
mod device_scanout;
mod display_cursor;
mod display_id;
mod display_scanout;
mod display_state;
mod display_states;
#[cfg(feature = "fuzzing")]
mod expected;
mod kept_picture;
mod pending_updates;
mod records;
mod scanouts;
mod source;
mod update;

pub(crate) use cursor::{Position, Shape};
pub(crate) use display_id::DisplayId;
#[cfg(feature = "fuzzing")]
pub use expected::ExpectedDisplay;
pub(crate) use pending_updates::PendingUpdates;
#[cfg(test)]
pub(crate) use scanouts::Readback;
pub(crate) use scanouts::{ActiveScanout, Scanouts};
pub(crate) use source::{DmabufSupport, ScanoutSource, Shown};
pub(crate) use update::Update;

#[cfg(test)]
mod tests;
