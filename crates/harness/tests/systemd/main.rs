// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The private systemd, and what runs in it.

mod mock_input;
mod qemu;
mod sandbox;
