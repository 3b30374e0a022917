#![no_main]
//! See `fuzz::rfb::rfb_server`.

libfuzzer_sys::fuzz_target!(init: fuzz::begin(), |data: &[u8]| fuzz::rfb::rfb_server(data));
