// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a hostile guest, front-end, device or host file can send, as targets for libFuzzer and for
//! the test that replays their corpora.
//!
//! A target takes any bytes, makes of them what its peer may do, has the real code serve that, and
//! panics where a promise is broken.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGPIPE;

pub mod bytes;
pub mod console;
pub mod console_input;
pub mod descriptors;
pub mod front_end;
pub mod gpu;
pub mod guest;
pub mod input;
pub mod kept_records;
pub mod kept_state;
pub mod replies;
pub mod rfb;
mod turns;
pub mod vhost_user;
pub mod virtual_input;

/// Has a closed socket be an error, as it is in any program that Rust starts, also where libFuzzer does.
///
/// # Panics
/// Where `sigaction(2)` fails, which it does not.
pub fn begin() {
    let noted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGPIPE, noted).expect("SIGPIPE can be handled");
}

/// A target: it panics where a promise is broken.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 18] = [
    ("console", console::console),
    ("console_input", console_input::console_input),
    ("control_2d", gpu::control_2d),
    ("control_3d", gpu::control_3d),
    ("control_venus", gpu::control_venus),
    ("cursor", gpu::cursor),
    ("descriptors", descriptors::descriptors),
    ("display_consoles", gpu::display_consoles),
    ("display_replies", replies::display_replies),
    ("input_hostile", input::input_hostile),
    ("input_reports", input::input_reports),
    ("kept_records", kept_records::kept_records),
    ("kept_state", kept_state::kept_state),
    ("resumed_2d", gpu::resumed_2d),
    ("rfb_server", rfb::rfb_server),
    ("rfb_viewer", rfb::rfb_viewer),
    ("vhost_user", vhost_user::vhost_user),
    ("virtual_input", virtual_input::virtual_input),
];
