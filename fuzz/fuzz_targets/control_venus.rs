// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::gpu::control_venus`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::gpu::control_venus(data));
