//! Fuzz target: what is mirrored of a frame, from its segments to the packets around them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::mirror::fuzz(data));
