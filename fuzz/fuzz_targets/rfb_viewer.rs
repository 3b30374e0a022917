// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::rfb::rfb_viewer`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::rfb::rfb_viewer(data));
