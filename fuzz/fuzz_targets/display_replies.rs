// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::replies::display_replies`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::replies::display_replies(data));
