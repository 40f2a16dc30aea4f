//! What a super-packet becomes on the wire.
//!
//! With segmentation offload the kernel hands one packet of up to 64 KiB (more with BIG TCP) to a device, and takes one
//! from it, where the wire carries segments. Each segment repeats the headers; all but the last are full.

use crate::headers::{Bytes, Ip, Transport};
use flowtap_abi::{Counts, Marks};

/// `gso_size` of packets whose segments differ in length (SCTP): see `GSO_BY_FRAGS` in the kernel's `skbuff.h`.
const GSO_BY_FRAGS: u32 = 0xffff;

/// Packets and bytes on the wire.
#[derive(Clone, Copy)]
pub(crate) struct OnWire {
    packets: u64,
    bytes: u64,
}

impl OnWire {
    /// What it adds to the counts of its flow.
    #[inline(always)]
    pub(crate) fn counted(self, now_ns: u64, marks: Marks) -> Counts {
        Counts { packets: self.packets, bytes: self.bytes, first_ns: now_ns, last_ns: now_ns, marks }
    }
}

/// What `frame` is on the wire, whose headers were read.
#[inline(always)]
pub(crate) fn on_wire<A>(frame: &impl Bytes, ip: &Ip<A>, transport: &Transport) -> OnWire {
    match frame.gso_bytes() {
        0 => OnWire { packets: 1, bytes: u64::from(ip.bytes) },
        gso_bytes => segmented(ip.bytes, ip.header_bytes + transport.header_bytes, gso_bytes, frame.gso_segments()),
    }
}

/// Whole frames on the wire, their link layer included.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Length of the longest.
    pub(crate) longest_bytes: u32,
}

/// The frames that `frame` is on the wire, where the link layer takes `link_bytes` of each. Its IP header is at `start`.
#[inline(always)]
pub(crate) fn frames<A>(
    frame: &impl Bytes,
    start: usize,
    link_bytes: u32,
    ip: &Ip<A>,
    transport: &Transport,
) -> Frames {
    let whole_bytes = frame.len() - start as u32 + link_bytes;
    match frame.gso_bytes() {
        0 => Frames { count: 1, bytes: u64::from(whole_bytes), longest_bytes: whole_bytes },
        gso_bytes => {
            let wire = on_wire(frame, ip, transport);
            let segment_bytes = link_bytes + ip.header_bytes + transport.header_bytes + gso_bytes;
            Frames {
                count: wire.packets,
                bytes: wire.bytes + wire.packets * u64::from(link_bytes),
                longest_bytes: segment_bytes.min(whole_bytes),
            }
        }
    }
}

/// A super-packet of `ip_bytes` from its IP header on, whose IP and transport header are `header_bytes`. The kernel's own
/// number of segments is missing for packets of virtual machines, so it is worked out from the segment size.
#[inline(always)]
fn segmented(ip_bytes: u32, header_bytes: u32, gso_bytes: u32, gso_segments: u32) -> OnWire {
    let payload_bytes = u64::from(ip_bytes.saturating_sub(header_bytes));
    let segments =
        if gso_bytes == GSO_BY_FRAGS { u64::from(gso_segments) } else { payload_bytes.div_ceil(u64::from(gso_bytes)) };
    let packets = segments.max(1);
    OnWire { packets, bytes: u64::from(ip_bytes) + (packets - 1) * u64::from(header_bytes) }
}
