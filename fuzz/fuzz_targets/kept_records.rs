// SPDX-License-Identifier: Apache-2.0 OR MIT

#![no_main]
//! See `fuzz::kept_records::kept_records`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::kept_records::kept_records(data));
