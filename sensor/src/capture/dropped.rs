//! Copies of packets, made where the kernel drops them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use super::{Direction, LinkType};
use crate::time::Timestamp;

/// A packet that the kernel dropped, as much of it as could be read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped<'a> {
    /// When.
    pub time: Timestamp,
    /// The kernel's index of the interface, as far as it can be told: by the packet itself, else by its route.
    pub device: Option<u32>,
    /// From that interface's point of view.
    pub direction: Direction,
    /// What its first bytes are.
    pub link_type: LinkType,
    /// The tag that belongs behind its Ethernet addresses, as the wire has it.
    pub tag: Option<[u8; 4]>,
    /// What could be read.
    pub bytes: &'a [u8],
    /// How long it is, without the tag.
    pub original_bytes: u32,
    /// Payload of each segment, if it is a super-packet.
    pub segment_bytes: Option<usize>,
    /// From where on its transport checksum is still to be computed, and where it stands, both from its first byte.
    pub open_checksum: Option<(usize, usize)>,
    /// Whether it had passed the counting point of its interface and direction before.
    pub was_counted: bool,
}

/// Where copies of dropped packets come from.
pub trait DropSource: Send {
    /// Has copies made from now on, or none any more.
    ///
    /// # Errors
    /// The kernel refuses.
    fn want(&mut self, wanted: bool) -> io::Result<()>;

    /// Readable when there is a copy to take.
    fn readiness(&self) -> BorrowedFd<'_>;

    /// Hands over what has come, at most so many.
    fn take(&mut self, at_most: usize, each: &mut dyn FnMut(&Dropped<'_>));

    /// Packets of which no copy could be made since the start, as there was no room or they could not be read, by the name
    /// of their drop reason.
    fn missed(&self) -> BTreeMap<String, u64>;
}
