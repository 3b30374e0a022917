// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::virtual_input::virtual_input`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::virtual_input::virtual_input(data));
