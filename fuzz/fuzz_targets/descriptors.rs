// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::descriptors::descriptors`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::descriptors::descriptors(data));
