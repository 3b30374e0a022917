// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest program and the host side of the tests have in common.
//!
//! Both ends link this crate, so that the host knows what the guest draws
//! ([`testcard`]), describes input devices in the same words ([`input`]) and
//! speaks the same line protocol ([`protocol`]).

pub mod animation;
pub mod input;
pub mod protocol;
pub mod testcard;
