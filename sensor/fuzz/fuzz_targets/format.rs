//! Fuzz target: formats and their templates.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowlog::format::fuzz(data));
