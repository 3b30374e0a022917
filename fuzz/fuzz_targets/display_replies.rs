#![no_main]
//! See `fuzz::replies::display_replies`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::replies::display_replies(data));
