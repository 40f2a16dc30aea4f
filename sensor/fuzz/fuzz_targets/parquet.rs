//! Fuzz target: Parquet files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowlog::parquet::fuzz(data));
