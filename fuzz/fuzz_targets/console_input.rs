// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::console_input::console_input`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::console_input::console_input(data));
