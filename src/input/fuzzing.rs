//! What the targets in fuzz/ need of the rooms in here: a device on hardware of their own.

use super::device::{InputBuilder, Options};
pub use super::source::{Description, Source};
pub use super::state::{Contact, State, Touch};
pub use super::wire::{Axis, Bits, CONFIG_SIZE, Event, Ids, code};

/// Makes a device whose events come from `source`.
pub fn builder<S: Source>(source: S, options: Options) -> InputBuilder<S> {
    InputBuilder::new(source, options)
}
