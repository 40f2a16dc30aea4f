//! Where copies go, and what is said of each.

use crate::capture::Direction;
use crate::mirror::counters::Skip;
use crate::mirror::encapsulate::Envelope;
use crate::time::Timestamp;

/// Takes copies.
pub trait Outlet: Send {
    /// Sends a copy, or queues it to be sent.
    ///
    /// # Errors
    /// Why the copy went nowhere.
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip>;

    /// The longest inner frame that gets to a target whole, as far as that is known; longer ones may find that out later.
    /// `None` where there is no way to it.
    fn room_bytes(&self, _target: u16) -> Option<usize> {
        Some(usize::MAX)
    }

    /// Lets go of copies that are being gathered: nothing may come for a while.
    fn flush(&mut self) {}
}

/// What became of a copy that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is sent.
    Sent {
        /// In more than one piece.
        fragmented: bool,
    },
    /// It waits; the outlet counts what becomes of it.
    Queued,
}

/// A copy on its way.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// When the frame was seen.
    pub time: Timestamp,
    /// Index into [`Mirror::sessions`](crate::mirror::Mirror::sessions).
    pub session: u16,
    /// Of the original.
    pub direction: Direction,
    /// Index into [`Mirror::targets`](crate::mirror::Mirror::targets).
    pub target: u16,
    /// UDP ports and tunnel header.
    pub envelope: Envelope,
    /// The wire frame, as much of it as the session sends.
    pub inner: &'a [u8],
    /// How long the wire frame is.
    pub wire_bytes: u64,
    /// Whether it ends before the frame does because not all could be read.
    pub is_partial: bool,
    /// Whether it may go as fragments if it is too big for the path.
    pub may_fragment: bool,
}
