//! One direction of a TCP connection, put together from its segments.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Whose direction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl StreamKey {
    /// The other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// What has come of a stream. It begins with its SYN, or with what comes first.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// The sequence number of the first byte.
    first: Option<u32>,
    bytes: Vec<u8>,
    /// What came before its turn, by its place in the stream.
    ahead: BTreeMap<usize, Vec<u8>>,
    out_of_order: usize,
}

impl Stream {
    /// Takes a segment.
    pub(super) fn take(&mut self, sequence: u32, syn: bool, payload: &[u8]) {
        let sequence = if syn { sequence.wrapping_add(1) } else { sequence };
        let first = *self.first.get_or_insert(sequence);
        let place = sequence.wrapping_sub(first) as usize;
        if payload.is_empty() || place > PLACE_MAX {
            return;
        }
        if place != self.bytes.len() {
            self.out_of_order += 1;
        }
        self.ahead.insert(place, payload.to_vec());
        while let Some(entry) = self.ahead.first_entry() {
            let place = *entry.key();
            if place > self.bytes.len() {
                break;
            }
            let segment = entry.remove();
            let known = self.bytes.len() - place;
            self.bytes.extend_from_slice(segment.get(known..).unwrap_or_default());
        }
    }

    /// The bytes from the beginning to the first gap.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether something is missing before what came last.
    pub fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// How many segments did not come in their turn: too early, or again.
    pub fn out_of_order(&self) -> usize {
        self.out_of_order
    }
}

/// A segment further ahead belongs before the first one.
const PLACE_MAX: usize = 1 << 31;
