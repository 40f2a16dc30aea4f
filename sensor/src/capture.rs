//! Where frames come from.
//!
//! A [`Source`] fills a [`Block`] with whole frames; a worker then takes the block through all stages. Blocks are
//! large (a read of [`BLOCK_BYTES`]) because reading in large blocks was measured to beat both mmap and one call a
//! packet. A frame is a range of its block's bytes, so nothing is copied or allocated per packet.

use crate::time::Timestamp;

/// How many bytes of frames a block holds before it is handed on; one frame larger than this still fits.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// A longer frame than this is damage, not traffic: libpcap's own bound is 256 KiB, BIG TCP frames stay below it.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Something that hands out frames, a block at a time.
pub trait Source: Send {
    /// Empties `block` and fills it with whole frames in the order of the capture.
    ///
    /// Frames before a damaged place are handed out first; the damage is the answer of the next call. After an error
    /// the source may have more to give (another file of several), so ask again until [`Fill::End`].
    ///
    /// # Errors
    /// What is wrong with the input, with its name and the offset.
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError>;
}

/// What a call of [`Source::fill`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The block holds at least one frame or drop report, or did before its frames were filtered.
    More,
    /// The block is empty: there is nothing now, and there may be something later. Only live sources say so, after they
    /// have waited a little, so that intervals close while nothing comes.
    Idle,
    /// The block is empty: there is nothing left.
    End,
}

/// Frames and the bytes they lie in.
#[derive(Debug, Default)]
pub struct Block {
    /// What was read: frames, and the record headers between them. What no frame points at means nothing: it may be
    /// left from an earlier use of the block, which keeps its memory so that filling it again costs no zeroing.
    pub bytes: Vec<u8>,
    /// The frames, in the order of the capture.
    pub frames: Vec<Frame>,
    /// Packets that the capture says it lost.
    pub drops: Vec<CaptureDrop>,
    /// Frames that a filter has taken out.
    pub excluded: Excluded,
    /// What the kernel counted by itself, in no order.
    pub counted: Vec<Counted>,
    /// Frames that the kernel saw and could not count.
    pub refused: Vec<Refused>,
    /// Frames that the kernel saw and that are copies which our own mirror made: no traffic of the host's.
    pub own_copies: u64,
    /// Of what the kernel counted, packets that it counted under ports 0.
    pub portless: Vec<(Portless, u64)>,
    /// What a source says that knows by itself when it has handed over everything from before a moment; with `None`
    /// that is for the clock to say.
    pub complete_until: Option<Timestamp>,
}

impl Block {
    /// Forgets frames and drops; the bytes stay, to be written over.
    fn clear(&mut self) {
        self.frames.clear();
        self.drops.clear();
        self.excluded = Excluded::default();
        self.counted.clear();
        self.refused.clear();
        self.own_copies = 0;
        self.portless.clear();
        self.complete_until = None;
    }

    /// The captured bytes of `frame`, which must be one of this block's.
    pub fn data(&self, frame: &Frame) -> &[u8] {
        frame.data(&self.bytes)
    }
}

/// One frame: from the link layer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// When it was captured.
    pub time: Timestamp,
    /// Where it starts in the block's bytes.
    pub offset: u32,
    /// How much of it was captured.
    pub captured_bytes: u32,
    /// How long it was on the wire.
    pub original_bytes: u32,
    /// Index of its interface in [`Interfaces`].
    pub interface: u16,
    /// What its first bytes are.
    pub link_type: LinkType,
    /// What the capture itself says of its direction (pcapng flags, Kuznetzov packet type).
    pub direction: Direction,
}

impl Frame {
    fn data<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.offset as usize;
        bytes.get(start..start + self.captured_bytes as usize).unwrap_or_default()
    }
}

/// Packets lost before the capture was written, as the capture reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureDrop {
    /// Index of the interface in [`Interfaces`].
    pub interface: u16,
    /// When the count was taken.
    pub time: Timestamp,
    /// How many packets were lost since the last report.
    pub packets: u64,
    /// Where they were lost.
    pub loss: Loss,
}

/// Where packets were lost that are missing from the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The capture had no room for them: libpcap's buffer, or what a capture file reports.
    CaptureBuffer,
    /// The kernel had room for their flow neither in its map nor in the ring buffer.
    FlowMap,
    /// The kernel had no memory to bring a frame's headers together.
    Headers,
    /// The kernel had no room to note that it had turned them away: they stand as let in.
    VerdictMap,
}

impl Loss {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::CaptureBuffer, Self::FlowMap, Self::Headers, Self::VerdictMap];

    /// The name that its counter carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::CaptureBuffer => "capture-buffer",
            Self::FlowMap => "flow-map",
            Self::Headers => "headers-not-gathered",
            Self::VerdictMap => "verdict-map",
        }
    }
}

/// From the interface's point of view. The numbers take part in the flow key's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Direction {
    /// Not known from the capture.
    #[default]
    Unknown = 0,
    /// Towards the interface's host.
    Ingress = 1,
    /// Away from the interface's host.
    Egress = 2,
}

#[cfg(test)]
mod corpus;
mod counted;
pub mod dropped;
mod error;
mod filter;
mod fuzz;
mod interfaces;
#[cfg(feature = "ebpf")]
pub mod kernel;
mod link_type;
pub mod live;
mod merge;
mod open;
mod order;
mod pcap_file;
mod pcapng;
mod roster;
pub(crate) mod socket_filter;
mod stream;
#[cfg(test)]
mod testing;

pub use counted::{Counted, DROP_REASONS_MAX, DropReason, DropReasonNames, DropReasons, Portless, Refused, Rejection};
pub use error::{CaptureError, Damage, Part};
pub use filter::{Excluded, Filter, FilterError, Filtered};
pub use fuzz::fuzz;
pub use interfaces::{INTERFACES_MAX, Interface, Interfaces};
pub use link_type::LinkType;
pub use merge::Merge;
pub use open::{Input, open, open_reader};
pub use roster::{Roster, Stay};
