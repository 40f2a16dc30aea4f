#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowlog::parquet::fuzz(data));
