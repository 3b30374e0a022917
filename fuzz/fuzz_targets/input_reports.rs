// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::input::input_reports`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::input::input_reports(data));
