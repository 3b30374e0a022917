//! What the targets in fuzz/ need of these modules.

pub use super::device::testing::fuzz_gpu::FuzzGpu;
pub use super::display::{Display, DisplayError, REPLY_LIMIT};
pub use super::display_info::{DisplayQuery, DisplayReply};
pub use super::protocol::{HEADER_LEN, MAX_EDID_LEN, MAX_SCANOUTS, MODES_LEN, command};
#[cfg(feature = "virgl")]
pub use super::renderer::virgl::testing::fake_virglrenderer::fuzzing as fake_virglrenderer;
pub use super::scanout::ExpectedDisplay;
