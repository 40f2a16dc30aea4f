//! Several captures as one, in the order of time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{BLOCK_BYTES, Block, CaptureError, Fill, Frame, Source};
use crate::time::Timestamp;

/// A source over several: hands out their frames by time, and at the same time in the order of the sources.
///
/// Each source keeps its own order, so what is out of order within one stays so. A source that fails says so once, and
/// the others go on. Costs a copy of each frame and a block of memory for each source.
pub struct Merge {
    sources: Vec<Ahead>,
    /// Time of the next frame of each source that has one, soonest first; at the same time, first source first.
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

    /// Reads from source `index` until it has a frame to offer or ends. What its last block told of drops is due by
    /// now, the frames around them having been handed out.
    fn read_ahead(&mut self, index: usize, out: &mut Block) {
        let Some(ahead) = self.sources.get_mut(index) else { return };
        loop {
            out.drops.append(&mut ahead.block.drops);
            ahead.taken = 0;
            match ahead.source.fill(&mut ahead.block) {
                Ok(Fill::End) => return,
                Ok(Fill::More) => {}
                Err(error) => self.errors.push_back(error),
            }
            if let Some(frame) = ahead.head() {
                self.heads.push(Reverse((frame.time, index)));
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
            if out.bytes.len() >= BLOCK_BYTES || next.is_some_and(|next| next < head) {
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
        while block.bytes.len() < BLOCK_BYTES
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
