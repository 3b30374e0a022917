// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console's keyboard and pointer: what viewers press becomes events for the VM's virtual input devices.
//!
//! ```text
//! viewers ── keysym ─▶ KeyboardLayout ─┐                                        events socket
//!         ── keycode ─▶ XT table ──────┴▶ Keyboard ── reports ──▶ EventsLink ──────────────▶ vhost-user-input
//!         ── pointer ─────────────────▶ Tablet ───┘       ▲            │                      --virtual=...
//!         ◀── LedState ────────────────────────────────────────────────┘
//! ```
//!
//! `Keyboard` and `Tablet` know who presses what and turn changes into reports.
//! `EventsLink` knows what the device was told. If it could not be told everything (the socket was full, or there
//! was no connection), the link later tells the difference to what is pressed then: nothing stays pressed, and nothing
//! that is out of date is typed.

mod console_input;
mod events_link;
mod held;
mod key_set;
mod keyboard;
mod keyboard_layout;
mod led_state;
mod tablet;
mod viewer_id;
mod xt_keycode;

pub use console_input::ConsoleInput;
pub use keyboard_layout::{KeyboardLayout, LayoutError};
pub use led_state::LedState;
pub use viewer_id::ViewerId;
