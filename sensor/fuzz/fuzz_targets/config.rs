//! Fuzz target: configuration files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::config::fuzz(data));
