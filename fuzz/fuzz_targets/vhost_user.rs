#![no_main]
//! See `fuzz::vhost_user::vhost_user`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::vhost_user::vhost_user(data));
