//! Captures made for a test: packets in whatever number and at whatever time it needs.

use std::iter;

/// A pcap file of UDP packets without payload (28 bytes) from 10.0.0.1 to 10.0.0.2, each from a port of its own, at the
/// times given in Unix seconds. No link layer.
pub(crate) fn capture(times_secs: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, RAW_IP].map(u32::to_le_bytes).concat();
    for (time_secs, port) in times_secs.into_iter().zip((0..=u16::MAX).cycle()) {
        file.extend([time_secs, 0, 28, 28].map(u32::to_le_bytes).concat());
        file.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        file.extend([port.to_be_bytes(), [0, 9], [0, 8], [0, 0]].concat());
    }
    file
}

/// `count` times the same second.
pub(crate) fn at(time_secs: u32, count: usize) -> impl Iterator<Item = u32> {
    iter::repeat_n(time_secs, count)
}

/// Where each record of a pcap file (little endian) begins, and where the last one ends.
pub(crate) fn record_offsets(capture: &[u8]) -> Vec<usize> {
    let mut offsets = vec![24];
    let mut at = 24;
    while let Some(length) = capture.get(at + 8..at + 12) {
        at += 16 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        offsets.push(at);
    }
    offsets
}

/// `LINKTYPE_RAW`
const RAW_IP: u32 = 101;
