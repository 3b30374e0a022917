#![no_main]
//! See `fuzz::descriptors::descriptors`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::descriptors::descriptors(data));
