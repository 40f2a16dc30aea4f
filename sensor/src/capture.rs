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
    /// The block holds at least one frame or drop report.
    More,
    /// The block is empty: there is nothing left.
    End,
}

/// Frames and the bytes they lie in.
#[derive(Debug, Default)]
pub struct Block {
    /// What was read: frames, and the record headers between them.
    pub bytes: Vec<u8>,
    /// The frames, in the order of the capture.
    pub frames: Vec<Frame>,
    /// Packets that the capture says it lost.
    pub drops: Vec<CaptureDrop>,
}

impl Block {
    /// The captured bytes of `frame`, which must be one of this block's.
    pub fn data(&self, frame: &Frame) -> &[u8] {
        let start = frame.offset as usize;
        self.bytes.get(start..start + frame.captured_bytes as usize).unwrap_or_default()
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

/// Packets lost before the capture was written, as the capture reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureDrop {
    /// Index of the interface in [`Interfaces`].
    pub interface: u16,
    /// When the count was taken.
    pub time: Timestamp,
    /// How many packets were lost since the last report.
    pub packets: u64,
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

mod error;
mod interfaces;
#[cfg(feature = "ebpf")]
pub mod kernel;
mod link_type;

pub use error::CaptureError;
pub use interfaces::{Interface, Interfaces};
pub use link_type::LinkType;
