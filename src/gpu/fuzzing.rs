//! What the targets in fuzz/ need of the rooms in here.

pub use super::commands::{Answer, Question};
pub use super::device::fuzzing::Bench;
pub use super::display::{Display, DisplayError, REPLY_LIMIT};
#[cfg(feature = "virgl")]
pub use super::renderer::virgl::stand_in;
pub use super::scanout::Truth;
pub use super::wire::{HEADER_LEN, MAX_EDID_LEN, MAX_SCANOUTS, MODES_LEN, command};
