//! One input as a source: reads it in large pieces and lets a format find the frames in them.
//!
//! Bytes go from the system straight into the block and stay there. Only the incomplete record at a block's end is
//! copied, to the front of the next block.

use std::io::{self, Read};
use std::mem;

use super::{BLOCK_BYTES, Block, CaptureDrop, CaptureError, Damage, Fill, Frame, Part, Source};

/// A capture format: finds the records in a run of bytes.
pub(super) trait Walk: Send {
    /// Walks the whole records at the start of `bytes`, adds what they hold to `frames` and `drops`, and says how far
    /// it came and why no further.
    fn walk(&mut self, bytes: &[u8], frames: &mut Vec<Frame>, drops: &mut Vec<CaptureDrop>) -> Walked;
}

/// How far a walk came.
pub(super) struct Walked {
    /// The bytes of whole records: always a record's border.
    pub(super) consumed_bytes: usize,
    /// What is wrong with, or missing from, the record after them.
    pub(super) stop: Stop,
}

/// Why a walk ended where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The next record is not all there. `needed_bytes`, counted from its start, is more than there is.
    Incomplete { part: Part, needed_bytes: usize },
    /// The next record is bad, and so where the one after it starts is not known.
    Damaged(Damage),
}

/// A reader and the format of what it reads.
pub(super) struct Stream<W> {
    reader: Box<dyn Read + Send>,
    format: W,
    input: String,
    /// Read already, but not yet a whole record.
    carry: Vec<u8>,
    /// Where in the input `carry` starts.
    offset: u64,
    /// What `carry` lacks.
    lacks: (Part, usize),
    state: State,
}

enum State {
    Reading,
    Failed(CaptureError),
    Ended,
}

impl<W: Walk> Stream<W> {
    /// A source over `reader`, which is at `offset` of the input called `input`. `first` is what the format's first
    /// record needs to be looked at.
    pub(super) fn new(reader: Box<dyn Read + Send>, format: W, input: &str, offset: u64, first: (Part, usize)) -> Self {
        let (input, carry) = (input.to_owned(), Vec::new());
        Self { reader, format, input, carry, offset, lacks: first, state: State::Reading }
    }

    /// Reads until `block` has something in it, the input ends or something is wrong.
    fn read_on(&mut self, block: &mut Block) -> Result<State, CaptureError> {
        let Block { bytes, frames, drops, .. } = block;
        let mut held_bytes = self.carry.len();
        make_room(bytes, held_bytes, self.lacks.1);
        if let Some(front) = bytes.get_mut(..held_bytes) {
            front.copy_from_slice(&self.carry);
        }
        loop {
            let room_end = make_room(bytes, held_bytes, self.lacks.1);
            let room = bytes.get_mut(held_bytes..room_end).unwrap_or_default();
            let read_bytes = read(&mut self.reader, room).map_err(|cause| self.unreadable(held_bytes, cause))?;
            if read_bytes == 0 {
                return if held_bytes == 0 { Ok(State::Ended) } else { Err(self.cut(held_bytes)) };
            }
            held_bytes += read_bytes;
            let Walked { consumed_bytes, stop } =
                self.format.walk(bytes.get(..held_bytes).unwrap_or_default(), frames, drops);
            self.offset += consumed_bytes as u64;
            let found = !frames.is_empty() || !drops.is_empty();
            match stop {
                Stop::Incomplete { part, needed_bytes } => self.lacks = (part, needed_bytes),
                Stop::Damaged(damage) if found => return Ok(State::Failed(self.damaged(damage))),
                Stop::Damaged(damage) => return Err(self.damaged(damage)),
            }
            if found {
                self.carry.clear();
                self.carry.extend_from_slice(bytes.get(consumed_bytes..held_bytes).unwrap_or_default());
                return Ok(State::Reading);
            }
            bytes.copy_within(consumed_bytes..held_bytes, 0);
            held_bytes -= consumed_bytes;
        }
    }

    fn cut(&self, left_bytes: usize) -> CaptureError {
        let (part, needed_bytes) = self.lacks;
        self.damaged(Damage::Cut { part, needed_bytes, left_bytes })
    }

    fn damaged(&self, damage: Damage) -> CaptureError {
        CaptureError::Damaged { input: self.input.clone(), offset: self.offset, damage }
    }

    fn unreadable(&self, held_bytes: usize, cause: io::Error) -> CaptureError {
        CaptureError::Read { input: self.input.clone(), offset: self.offset + held_bytes as u64, cause }
    }
}

impl<W: Walk> Source for Stream<W> {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        block.clear();
        match mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Ok(Fill::End),
            State::Failed(error) => return Err(error),
            State::Reading => self.state = self.read_on(block)?,
        }
        let found = !block.frames.is_empty() || !block.drops.is_empty();
        Ok(if found { Fill::More } else { Fill::End })
    }
}

/// Makes `bytes` long enough to read more behind the `held_bytes` in it, and says up to where to read. A record longer
/// than a block gets its room as its bytes come, so a length that lies costs no memory.
fn make_room(bytes: &mut Vec<u8>, held_bytes: usize, needed_bytes: usize) -> usize {
    let room_end = needed_bytes.min(2 * held_bytes).max(BLOCK_BYTES).max(held_bytes);
    if bytes.len() < room_end {
        bytes.resize(room_end, 0);
    }
    room_end
}

/// One read, tried again when a signal came between.
pub(super) fn read(reader: &mut dyn Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
