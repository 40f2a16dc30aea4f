//! Fuzz target: policy files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::policy::fuzz(data));
