//! What a frame must become before it is encapsulated: what a wire would have carried, whatever the host offloads.
//!
//! A super-packet is cut ([`super::segment`]); a checksum that was left to the card is completed; a length field left
//! open is filled in; a device without Ethernet gets a header with locally administered addresses. VLAN tags stay where
//! they are. Everything else goes as it was seen, byte for byte, also what is wrong with it: a bad checksum that came
//! over the wire is for the IDS to judge.
//!
//! What was offloaded is known where the kernel says it ([`Hints::Kernel`]). In a capture file it is not. There a TCP or
//! UDP checksum that is exactly what the kernel leaves for a card (the pseudo-header's sum) is taken for one, and a TCP
//! packet longer than the interface's MTU for a super-packet; its segments then fill the MTU, which may not be where
//! the card cut it. A UDP super-packet in a file can't be told from a large datagram and goes as it is.

pub use flowtap_abi::mirror::MADE_ADDRESSES;

use super::checksum::Sum;
use super::segment::{PieceSize, Segmenter};
use crate::capture::LinkType;
use crate::packet::{Addresses, Fragment, Layout};

/// A frame as it was seen, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// As much of it as was kept.
    pub captured: &'a [u8],
    /// How long it was.
    pub original_bytes: u32,
    /// What its first bytes are.
    pub link_type: LinkType,
    /// Where its headers lie.
    pub layout: Layout,
    /// What was left to the card.
    pub hints: Hints,
    /// The interface's MTU: the longest IP packet of its wire.
    pub mtu: usize,
}

/// What is known of work that was left to the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hints {
    /// Nothing, as in a capture file.
    Unknown,
    /// What the kernel says (`struct virtio_net_hdr`).
    Kernel {
        /// Where the checksum is, and from where on it is to be computed, both from the beginning of the frame.
        checksum: Option<PartialChecksum>,
        /// Payload of each segment of a super-packet.
        segment_bytes: Option<usize>,
    },
}

/// A checksum that holds the pseudo-header's sum and waits for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// From where on the frame's bytes count.
    pub start: usize,
    /// Where the checksum stands.
    pub at: usize,
}

/// What a frame stands for on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many frames.
    pub frames: usize,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// How long the longest of them is, as far as it is there.
    pub longest_bytes: usize,
    /// Whether all of it was captured. Of what was not, no checksum can be completed and no segment made.
    pub is_whole: bool,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As captured.
    AsSeen,
    /// With another link header, or a checksum completed.
    Mended { checksum: Option<PartialChecksum> },
    /// In pieces.
    Cut,
}

/// Makes wire frames; keeps its memory.
#[derive(Debug, Default)]
pub struct Inner {
    segmenter: Segmenter,
    link: Vec<u8>,
    frame: Vec<u8>,
}

impl Inner {
    /// Looks what a frame stands for. [`Self::for_each`] takes the plan last made.
    pub fn plan(&mut self, seen: &Seen<'_>) -> Plan {
        let size = self.piece_size(seen);
        self.planned(seen, size)
    }

    /// The same of a frame that is to be sent although not all of it is there: as one, with the lengths and checksums that
    /// stand in it.
    pub fn plan_as_seen(&mut self, seen: &Seen<'_>) -> Plan {
        self.planned(seen, None)
    }

    fn planned(&mut self, seen: &Seen<'_>, size: Option<PieceSize>) -> Plan {
        let Seen { captured, layout, .. } = seen;
        let ip_bytes = layout.packet.ip_bytes as usize;
        let is_whole = captured.len() >= seen.original_bytes as usize || captured.len() >= layout.ip_at + ip_bytes;
        let is_ethernet = seen.link_type == LinkType::Ethernet;
        if !is_ethernet {
            self.make_link(seen);
        }
        if let Some(size) = size {
            let (link, ip) = captured.split_at_checked(layout.ip_at).unwrap_or_default();
            let link = if is_ethernet { link } else { &self.link };
            if let Some(frames) = self.segmenter.take_up(link, ip, layout, size) {
                let is_whole = captured.len() >= layout.ip_at + ip_bytes;
                let (bytes, longest_bytes) = (self.segmenter.frames_bytes(frames), self.segmenter.longest_bytes());
                return Plan { frames, bytes, longest_bytes, is_whole, form: Form::Cut };
            }
        }
        let checksum = if is_whole { partial_checksum(seen) } else { None };
        // Padding that was not kept is no loss, and is not sent.
        let seen_bytes = if is_whole { captured.len() } else { seen.original_bytes as usize };
        let (bytes, form) = match (is_ethernet, checksum) {
            (true, None) => (seen_bytes, Form::AsSeen),
            (true, checksum @ Some(_)) => (seen_bytes, Form::Mended { checksum }),
            // A packet whose header says more than came is sent as far as it came.
            (false, checksum) if is_whole => {
                let came_bytes = captured.len().saturating_sub(layout.ip_at);
                (self.link.len() + ip_bytes.min(came_bytes), Form::Mended { checksum })
            }
            (false, checksum) => (self.link.len() + ip_bytes, Form::Mended { checksum }),
        };
        let longest_bytes = match form {
            Form::AsSeen | Form::Mended { .. } if is_ethernet => captured.len(),
            _ => self.link.len() + captured.len().saturating_sub(layout.ip_at),
        };
        Plan { frames: 1, bytes: bytes as u64, longest_bytes: longest_bytes.min(bytes), is_whole, form }
    }

    /// Hands over each wire frame, in order.
    pub fn for_each(&mut self, seen: &Seen<'_>, plan: &Plan, mut take: impl FnMut(&[u8])) {
        let Seen { captured, layout, .. } = seen;
        let is_ethernet = seen.link_type == LinkType::Ethernet;
        match plan.form {
            Form::AsSeen => take(captured),
            Form::Mended { checksum } => {
                self.frame.clear();
                // Behind the packet there may be what another link layer ends with: it goes with its header.
                let end = captured.len().min(layout.ip_at + layout.packet.ip_bytes as usize);
                if is_ethernet {
                    self.frame.extend_from_slice(captured);
                } else {
                    self.frame.extend_from_slice(&self.link);
                    self.frame.extend_from_slice(captured.get(layout.ip_at..end).unwrap_or_default());
                }
                if let Some(checksum) = checksum {
                    let link_bytes = if is_ethernet { layout.ip_at } else { self.link.len() };
                    let ip_bytes = end.saturating_sub(layout.ip_at);
                    complete(&mut self.frame, checksum, layout, link_bytes, link_bytes + ip_bytes);
                }
                take(&self.frame);
            }
            Form::Cut => {
                let ip = captured.get(layout.ip_at..).unwrap_or_default();
                for number in 0..plan.frames {
                    self.frame.clear();
                    self.segmenter.write(ip, number, &mut self.frame);
                    take(&self.frame);
                }
            }
        }
    }

    /// How a frame is to be cut; `None` if it is not.
    fn piece_size(&self, seen: &Seen<'_>) -> Option<PieceSize> {
        let packet = &seen.layout.packet;
        let is_long = packet.ip_bytes as usize > seen.mtu;
        match (seen.hints, packet.protocol) {
            (Hints::Kernel { segment_bytes: Some(bytes), .. }, TCP | UDP) => Some(PieceSize::Payload(bytes)),
            (Hints::Unknown, TCP) if is_long => Some(PieceSize::Mtu(seen.mtu)),
            // One piece: its length and its checksum are filled in.
            (_, TCP) if seen.layout.has_open_length => Some(PieceSize::Mtu(seen.mtu)),
            (_, UDP) if seen.layout.has_open_length => Some(PieceSize::Payload(usize::MAX)),
            _ => None,
        }
    }

    /// An Ethernet header for a frame that has none.
    fn make_link(&mut self, seen: &Seen<'_>) {
        let cooked = match seen.link_type {
            LinkType::LinuxSll => seen.captured.get(SLL_TYPE_AT..seen.layout.ip_at),
            LinkType::LinuxSll2 => {
                let ethertype = seen.captured.get(..SLL2_TYPE_BYTES);
                self.link.clear();
                self.link.extend_from_slice(&MADE_ADDRESSES);
                self.link.extend_from_slice(ethertype.unwrap_or_default());
                seen.captured.get(SLL2_HEADER_BYTES..seen.layout.ip_at)
            }
            _ => None,
        };
        if seen.link_type != LinkType::LinuxSll2 {
            self.link.clear();
            self.link.extend_from_slice(&MADE_ADDRESSES);
        }
        // What a cooked header calls its protocol is the ethertype, tags behind it included.
        self.link.extend_from_slice(cooked.unwrap_or_default());
        let ethertype = self.link.get(MADE_ADDRESSES.len()..).and_then(<[u8]>::first_chunk).copied();
        if ethertype.map(u16::from_be_bytes).is_none_or(|ethertype| ethertype < ETHERTYPE_MIN) {
            self.link.truncate(MADE_ADDRESSES.len());
            self.link.extend_from_slice(match seen.layout.packet.addresses {
                Addresses::V4 { .. } => &[0x08, 0x00],
                Addresses::V6 { .. } => &[0x86, 0xdd],
            });
        }
    }
}

/// The checksum that is to be completed.
fn partial_checksum(seen: &Seen<'_>) -> Option<PartialChecksum> {
    match seen.hints {
        Hints::Kernel { checksum, .. } => checksum,
        Hints::Unknown => {
            let Layout { packet, ip_at, payload_at, .. } = seen.layout;
            let at = match packet.protocol {
                TCP => payload_at + TCP_CHECKSUM_AT,
                UDP => payload_at + UDP_CHECKSUM_AT,
                _ => return None,
            };
            if packet.fragment != Fragment::None {
                return None;
            }
            let found = seen.captured.get(at..at + 2)?;
            let length_bytes = (packet.ip_bytes as usize).checked_sub(payload_at - ip_at)?;
            let left = Sum::of_pseudo_header(packet.addresses, packet.protocol, length_bytes as u32).folded();
            let is_none = packet.protocol == UDP && found == [0, 0];
            (!is_none && found == left.to_be_bytes()).then_some(PartialChecksum { start: payload_at, at })
        }
    }
}

/// Completes a checksum in `frame`, whose link header has `link_bytes` and whose IP packet ends at `end`.
fn complete(frame: &mut [u8], checksum: PartialChecksum, layout: &Layout, link_bytes: usize, end: usize) {
    // Both places are told from the beginning of the frame as it was seen.
    let moved = |at: usize| (at + link_bytes).checked_sub(layout.ip_at);
    let (Some(start), Some(at)) = (moved(checksum.start), moved(checksum.at)) else { return };
    let sum = Sum::default().over(frame.get(start..end).unwrap_or_default());
    // UDP's 0 would mean that there is none; for TCP the two zeros of this arithmetic are as good as each other.
    let value = if layout.packet.protocol == UDP { sum.udp_checksum() } else { sum.checksum() };
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A smaller number is a length, and LLC follows.
const ETHERTYPE_MIN: u16 = 0x0600;

/// The last two of the sixteen bytes of a cooked header.
const SLL_TYPE_AT: usize = 14;
/// The first two of twenty.
const SLL2_TYPE_BYTES: usize = 2;
const SLL2_HEADER_BYTES: usize = 20;

const TCP: u8 = 6;
const TCP_CHECKSUM_AT: usize = 16;
const UDP: u8 = 17;
const UDP_CHECKSUM_AT: usize = 6;

#[cfg(test)]
mod tests;
