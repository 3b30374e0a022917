// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::kept_state::kept_state`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::kept_state::kept_state(data));
