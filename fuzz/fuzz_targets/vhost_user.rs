// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::vhost_user::vhost_user`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::vhost_user::vhost_user(data));
