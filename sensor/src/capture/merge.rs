//! Several captures as one, in the order of time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{BLOCK_BYTES, Block, CaptureError, Fill, Frame, Source};
use crate::time::Timestamp;

/// A source over several: hands out their frames by time, and at the same time in the order of the sources.
///
/// Each source keeps its own order, so what is out of order within one stays so. A source that fails says so once, and
/// the others go on. A source that is idle is waited for, so this is for captures that are on disk. Costs a copy of each frame and a block of memory for each source.
pub struct Merge {
    sources: Vec<Ahead>,
    /// When each source that has something is due, soonest first; at the same time, first source first.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// What went wrong and was not handed out yet.
    errors: VecDeque<CaptureError>,
    started: bool,
}

/// A source and what was read from it ahead of its time.
struct Ahead {
    source: Box<dyn Source>,
    block: Block,
    /// How many of the block's frames were handed out.
    taken: usize,
}

impl Ahead {
    fn head(&self) -> Option<&Frame> {
        self.block.frames.get(self.taken)
    }

    /// When the block is due: at its next frame, or at its first drop if it holds nothing else.
    fn due(&self) -> Option<Timestamp> {
        let first_drop = || self.block.drops.first().map(|drop| drop.time);
        self.head().map(|frame| frame.time).or_else(first_drop)
    }
}

impl Merge {
    /// Merges `sources`.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        let ahead = |source| Ahead { source, block: Block::default(), taken: 0 };
        Self {
            sources: sources.into_iter().map(ahead).collect(),
            heads: BinaryHeap::new(),
            errors: VecDeque::new(),
            started: false,
        }
    }

    /// Reads the next block of source `index`. What its last block told of drops goes out now, the frames around them
    /// having been handed out.
    fn read_ahead(&mut self, index: usize, out: &mut Block) {
        let Some(ahead) = self.sources.get_mut(index) else { return };
        loop {
            out.drops.append(&mut ahead.block.drops);
            ahead.taken = 0;
            match ahead.source.fill(&mut ahead.block) {
                Ok(Fill::End) => return,
                Ok(Fill::More | Fill::Idle) => {}
                Err(error) => self.errors.push_back(error),
            }
            if let Some(time) = ahead.due() {
                self.heads.push(Reverse((time, index)));
                return;
            }
        }
    }

    /// Hands out frames of source `index` until one of another source is due, `out` is full or its block is used up.
    fn hand_out(&mut self, index: usize, out: &mut Block) {
        let next = self.heads.peek().map(|Reverse(head)| *head);
        let Some(ahead) = self.sources.get_mut(index) else { return };
        while let Some(frame) = ahead.head() {
            let head = (frame.time, index);
            if is_full(out) || next.is_some_and(|next| next < head) {
                self.heads.push(Reverse(head));
                return;
            }
            let offset = out.bytes.len() as u32;
            out.bytes.extend_from_slice(ahead.block.data(frame));
            out.frames.push(Frame { offset, ..*frame });
            ahead.taken += 1;
        }
        self.read_ahead(index, out);
    }
}

impl Source for Merge {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        block.clear();
        block.bytes.clear();
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        if !self.started {
            self.started = true;
            for index in 0..self.sources.len() {
                self.read_ahead(index, block);
            }
        }
        while !is_full(block)
            && self.errors.is_empty()
            && let Some(Reverse((_, index))) = self.heads.pop()
        {
            self.hand_out(index, block);
        }
        if !block.frames.is_empty() || !block.drops.is_empty() {
            return Ok(Fill::More);
        }
        self.errors.pop_front().map_or(Ok(Fill::End), Err)
    }
}

/// Frames can be empty and drops have no bytes, so their number is bounded too.
fn is_full(block: &Block) -> bool {
    block.bytes.len() >= BLOCK_BYTES || block.frames.len() + block.drops.len() >= ITEMS_MAX
}

/// How many frames and drops fill a block.
const ITEMS_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::testing::{PCAP, PCAPNG, drain, open_bytes};
    use super::super::{CaptureDrop, Damage, Interfaces, Loss, Part};
    use super::*;

    /// A pcap file with a frame of one byte, `data`, at each of `secs`.
    fn capture(data: u8, secs: &[u8]) -> Vec<u8> {
        let record = |secs: &u8| [*secs, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, data];
        [&PCAP[..24], secs.iter().map(record).collect::<Vec<_>>().as_flattened()].concat()
    }

    fn merge(captures: &[(&str, Vec<u8>)], interfaces: &Interfaces) -> Merge {
        Merge::new(captures.iter().map(|(name, bytes)| open_bytes(bytes, name, interfaces).unwrap()).collect())
    }

    #[test]
    fn frames_come_by_time_and_then_in_the_order_of_the_sources() {
        let captures =
            [("a", capture(b'a', &[1, 3, 3, 5])), ("b", capture(b'b', &[2, 3, 4])), ("c", capture(b'c', &[]))];
        let drained = drain(&mut merge(&captures, &Interfaces::default()));
        assert_eq!(drained.payloads().concat(), b"abaabba");
        assert_eq!(drained.times_ns(), [1, 2, 3, 3, 3, 4, 5].map(|secs| secs * 1_000_000_000));
        let interfaces: Vec<u16> = drained.frames.iter().map(|(frame, _)| frame.interface).collect();
        assert_eq!(interfaces, [0, 1, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn a_source_keeps_its_own_order() {
        let captures = [("a", capture(b'a', &[9, 1])), ("b", capture(b'b', &[8, 10]))];
        assert_eq!(drain(&mut merge(&captures, &Interfaces::default())).payloads().concat(), b"baab");
    }

    #[test]
    fn a_source_that_fails_says_so_once_and_the_others_go_on() {
        let mut cut = capture(b'b', &[2, 4]);
        cut.pop();
        let captures = [("a", capture(b'a', &[1, 3, 5])), ("b", cut)];
        let drained = drain(&mut merge(&captures, &Interfaces::default()));
        assert_eq!(drained.payloads().concat(), b"abaa");
        let cut = Damage::Cut { part: Part::Record, needed_bytes: 17, left_bytes: 16 };
        assert_eq!(drained.damage(), Some((41, cut)));
    }

    #[test]
    fn no_source_and_one_source() {
        assert!(drain(&mut Merge::new(Vec::new())).frames.is_empty());
        let interfaces = Interfaces::default();
        let drained = drain(&mut merge(&[("a", PCAPNG.to_vec())], &interfaces));
        assert_eq!(drained.payloads(), [&b"abc"[..], b"defgh"]);
    }

    #[test]
    fn more_than_a_block_of_frames() {
        let long = |data: u8| {
            let record = [&[1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0][..], &[data; 1024]].concat();
            [&PCAP[..24], &record.repeat(700)].concat()
        };
        let drained = drain(&mut merge(&[("a", long(b'a')), ("b", long(b'b'))], &Interfaces::default()));
        let payloads = drained.payloads();
        assert_eq!(payloads.len(), 1400);
        assert!(payloads[..700].iter().all(|payload| *payload == [b'a'; 1024]));
        assert!(payloads[700..].iter().all(|payload| *payload == [b'b'; 1024]));
    }

    #[test]
    fn empty_frames_fill_a_block_too() {
        let many = [&PCAP[..24], &[0; 16].repeat(3 * ITEMS_MAX)].concat();
        let mut merge = merge(&[("a", many)], &Interfaces::default());
        let mut block = Block::default();
        for _ in 0..3 {
            assert_eq!(merge.fill(&mut block).unwrap(), Fill::More);
            assert_eq!(block.frames.len(), ITEMS_MAX);
        }
        assert_eq!(merge.fill(&mut block).unwrap(), Fill::End);
    }

    #[test]
    fn drops_are_handed_on_after_the_frames_around_them() {
        // Statistics of the first interface at 7 µs: four dropped.
        let statistics = b"\x05\0\0\0\x24\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x05\0\x08\0\x04\0\0\0\0\0\0\0\x24\0\0\0";
        let lossy = [PCAPNG, statistics].concat();
        let only_lossy = [&PCAPNG[..48], statistics].concat();
        let captures = [("a", lossy), ("b", only_lossy), ("c", capture(b'c', &[2]))];
        let drained = drain(&mut merge(&captures, &Interfaces::default()));
        assert_eq!(drained.payloads(), [&b"abc"[..], b"c", b"defgh"]);
        let drop = |interface| CaptureDrop { interface, time: Timestamp(7000), packets: 4, loss: Loss::CaptureBuffer };
        // A pcap file's interface is known at once, those of pcapng when they are read.
        assert_eq!(drained.drops, [drop(2), drop(1)]);
    }
}
