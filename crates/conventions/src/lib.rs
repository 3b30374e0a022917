// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the backend programs, their units and vhostctl have to agree on: QEMU's "Backend program
//! conventions" (docs/interop/vhost-user.rst) and its schema (vhost-user.json), the texts of `STATUS=`, the names
//! of desktops, sizes, and the names in the units.

mod capabilities;
mod console;
mod description;
mod device_type;
mod escape;
mod front_end_status;
mod gpu_memory;
mod input_match;
mod input_status;
mod size;
mod state_version;
mod units;

pub use capabilities::Capabilities;
pub use console::{DesktopName, ScreenState, ViewersStatus};
pub use description::BackendDescription;
pub use device_type::{DeviceType, UnknownDeviceType};
pub use escape::{is_unprintable, printable, printable_lines};
pub use front_end_status::{FrontEndStatus, Peer};
pub use gpu_memory::GpuMemory;
pub use input_match::{InputIdentity, InputIds, InputIdsError, InputMatch};
pub use input_status::{RELEASED_TO_HOST, is_released_to_host};
pub use size::{SizeError, parse_size};
pub use state_version::StateVersion;
pub use units::{
    EVDEV_PATH, FIRST_PASSED_FD, KEPT_STATE_DESCRIPTORS, OPTIONS, SOCKET_FOLDER, SOCKET_PATH_MAX,
};
