//! Fuzz target: pcap and pcapng, plain and compressed.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::capture::fuzz(data));
