//! Fuzz target: frames of every link type.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::packet::fuzz(data));
