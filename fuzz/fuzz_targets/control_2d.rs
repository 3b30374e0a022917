// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::gpu::control_2d`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::gpu::control_2d(data));
