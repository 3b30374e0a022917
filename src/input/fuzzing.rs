//! What the targets in fuzz/ need of the rooms in here: a device on hardware of their own.

use std::io;

use super::device::{Input, Options};
pub use super::source::{Description, Source};
pub use super::state::{Contact, State, Touch};
pub use super::wire::{Axis, Bits, CONFIG_SIZE, Event, Ids, code};

/// A device whose events come from `source`.
///
/// # Errors
/// Where the host has no descriptors left.
pub fn device<S: Source>(source: S, options: Options) -> io::Result<Input<S>> {
    Input::new(source, options)
}
