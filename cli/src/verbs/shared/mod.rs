// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What several verbs share.

pub(super) mod arguments;
pub(super) mod command_there;
pub(super) mod confirm;
pub(super) mod console_socket;
pub(super) mod delete_drop_in;
pub(super) mod kept_folders;
pub(super) mod lock;
pub(super) mod state_style;
pub(super) mod unit_control;
pub(super) mod vm_devices;
