// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the targets in fuzz/ and `benches/parts` use of the private modules.

use std::time::Duration;

use super::{display, protocol};

pub use super::device::testing::fuzz_gpu::FuzzGpu;
pub use super::display::fuzz_display::FuzzDisplay;
pub use super::display_info::{DisplayQuery, DisplayReply};
pub use super::protocol::command;
pub use super::renderer::benchmarks::{Part, parts};
#[cfg(feature = "virgl")]
pub use super::renderer::venus::testing::fuzzing as fake_render_server;
#[cfg(feature = "virgl")]
pub use super::renderer::virgl::testing::fake_virglrenderer::fuzzing as fake_virglrenderer;
pub use super::scanout::ExpectedDisplay;

/// How long a display's reply is awaited.
pub const REPLY_LIMIT: Duration = display::REPLY_LIMIT;
/// Bytes of the header of a request or response.
pub const HEADER_LEN: usize = protocol::HEADER_LEN;
/// Bytes of the modes in a display information.
pub const MODES_LEN: usize = protocol::MODES_LEN;
/// Most bytes of EDID in a response.
pub const MAX_EDID_LEN: usize = protocol::MAX_EDID_LEN;
/// Most scanouts of a device.
pub const MAX_SCANOUTS: usize = protocol::MAX_SCANOUTS;
