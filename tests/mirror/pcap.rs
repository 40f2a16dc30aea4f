//! A reader of pcap files that shares nothing with the program's own.

/// One frame of a capture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// As much as was captured.
    pub bytes: Vec<u8>,
    /// How long it was.
    pub original_bytes: u32,
}

/// Reads a pcap file of Ethernet frames, in micro- or nanoseconds, little-endian.
///
/// # Panics
/// If it is something else, or not whole.
#[track_caller]
pub fn read_pcap(file: &[u8]) -> Vec<Record> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    assert!(file.len() >= HEADER_BYTES, "no pcap header");
    let unit_ns = match word(file, 0) {
        0xa1b2_3c4d => 1,
        0xa1b2_c3d4 => 1000,
        magic => panic!("magic {magic:08x}"),
    };
    assert_eq!(word(file, 20), 1, "link type");
    let mut rest = &file[HEADER_BYTES..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        assert!(rest.len() >= RECORD_BYTES, "a record is cut");
        let (header, behind) = rest.split_at(RECORD_BYTES);
        let length = word(header, 8) as usize;
        assert!(behind.len() >= length, "a frame is cut");
        let (bytes, behind) = behind.split_at(length);
        let time_ns = u64::from(word(header, 0)) * 1_000_000_000 + u64::from(word(header, 4)) * unit_ns;
        records.push(Record { time_ns, bytes: bytes.to_vec(), original_bytes: word(header, 12) });
        rest = behind;
    }
    records
}

const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 16;
