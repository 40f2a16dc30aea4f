//! Fuzz target: logs as text.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowlog::text::fuzz(data));
