//! What the kernel drops, and why.
//!
//! Authority: the kernel's tracepoint `skb:kfree_skb`, whose first argument is the packet and whose third the reason
//! (`include/net/dropreason-core.h`). Reasons differ between kernels, so their numbers are no part of this program: the
//! loader sets them as it sets the offsets of [`skb`](crate::skb).
//!
//! The packet is the kernel's own, in whatever state its drop left it. Every read is checked; one that fails means there
//! is nothing to say.

mod copy;

use crate::{
    flows, fragments,
    headers::{self, Bytes, Fragment, Ip, Plain, Stop, Transport},
    maps,
    skb::{
        Arguments, CONTROL_BUFFER_WORDS, DEVICE_INDEX, DEVICE_NAMESPACE, NAMESPACE_INODE, SHARED_GSO_SEGMENTS,
        SHARED_GSO_SIZE, SKB_CONTROL_BUFFER, SKB_DATA, SKB_DEVICE, SKB_END, SKB_HEAD, SKB_IN_INTERFACE, SKB_LEN,
        SKB_MARK, SKB_NETWORK_HEADER, SKB_PROTOCOL, SKB_SOCKET, SKB_TAIL, SOCKET_NAMESPACE, WATCHED_NAMESPACE, field,
        global, read,
    },
    wire,
};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use flowtap_abi::{
    Direction, FragmentKey, MARK_WORD, OverflowKind, VerdictKey, counted_mark,
    mirror::{COPY_MARK, COPY_MARK_MASK},
};

/// Number of the reason for drops by tc on the way in.
#[unsafe(no_mangle)]
static TC_INGRESS: u32 = 0;

/// Number of the reason for drops by a socket's filter.
#[unsafe(no_mangle)]
static SOCKET_FILTER: u32 = 0;

/// Counts one dropped packet, if its reason is asked for and its namespace watched, and copies it if that is asked for.
#[inline(always)]
pub(crate) fn observe(context: &impl Arguments) -> i32 {
    let skb = context.argument(0);
    let reason = context.argument(2) as u32;
    if maps::drop_reason_wanted(reason) {
        count(skb, reason).unwrap_or_default();
    }
    0
}

/// `None` means that the packet is none of ours.
#[inline(always)]
fn count(skb: u64, reason: u32) -> Option<()> {
    let mark: u32 = field(skb, &SKB_MARK)?;
    if mark & COPY_MARK_MASK == COPY_MARK {
        return None;
    }
    let (interface, direction) = place(skb)?;
    let dropped = Dropped::new(skb)?;
    let key = VerdictKey {
        interface,
        reason,
        src: [0; 16],
        dst: [0; 16],
        ports: [0; 4],
        protocol: 0,
        direction: direction as u8,
        version: 0,
        counted: u8::from(was_counted(skb, interface, direction, reason)),
    };
    match field::<u16>(skb, &SKB_PROTOCOL)? {
        headers::IPV4 => {
            let ip = headers::ipv4(&dropped, 0).ok()?;
            let (src, dst) = (fragments::widened(ip.src), fragments::widened(ip.dst));
            let pieces = fragments::key_v4(interface, direction, &ip);
            count_packet(skb, VerdictKey { src, dst, version: 4, ..key }, &dropped, &ip, pieces)
        }
        headers::IPV6 => {
            let ip = headers::ipv6(&dropped, 0).ok()?;
            let pieces = fragments::key_v6(interface, direction, &ip);
            count_packet(skb, VerdictKey { src: ip.src, dst: ip.dst, version: 6, ..key }, &dropped, &ip, pieces)
        }
        _ => None,
    }
}

#[inline(always)]
fn count_packet<A>(skb: u64, key: VerdictKey, dropped: &Dropped, ip: &Ip<A>, pieces: FragmentKey) -> Option<()> {
    let (transport, protocol) = match ip.fragment {
        _ if !ip.walked => (Transport::NONE, ip.protocol),
        Fragment::Later => {
            fragments::recall(FragmentKey { id: ip.fragment_id, ..pieces }).unwrap_or((Transport::NONE, ip.protocol))
        }
        // Ports that were not in the readable part of the packet are not worth its count.
        _ => (headers::transport(dropped, 0, ip).unwrap_or(Transport::NONE), ip.protocol),
    };
    // A raw socket gets a copy of what also goes to others: what its filter makes of that is no verdict on the packet.
    if key.reason == global(&SOCKET_FILTER) && !matches!(protocol, headers::TCP | headers::UDP) {
        return None;
    }
    let key = VerdictKey { ports: transport.ports, protocol, ..key };
    // SAFETY: the helper has no arguments and no precondition. Tracing programs have no coarse clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // What was counted is taken out where it was counted: in the same generation, also when that ends between the two.
    let at_ns = if key.counted != 0 { maps::counted_at(now_ns) } else { now_ns };
    let new = wire::on_wire(dropped, ip, &transport).counted(at_ns, transport.marks);
    let counted = if maps::second_generation(at_ns) {
        maps::count(&maps::VERDICTS_B, &key, &new)
    } else {
        maps::count(&maps::VERDICTS_A, &key, &new)
    };
    if let Err(error) = counted {
        // SAFETY: twelve words without padding, for which any bytes are valid.
        let words: [u32; 12] = unsafe { core::mem::transmute(key) };
        flows::overflow(OverflowKind::Verdict, words, key.interface, &new, error);
    }
    if maps::drops_are_copied() {
        copy::make(&copy::Known::new(skb, &key, dropped));
    }
    Some(())
}

/// Interface and direction of a packet in the watched namespace.
///
/// A received packet still stands at the interface it came in by, even in the forwarding hook. One that the host sends
/// has no interface until routing is done with it; then its socket knows the namespace.
#[inline(always)]
fn place(skb: u64) -> Option<(u32, Direction)> {
    let device: u64 = field(skb, &SKB_DEVICE)?;
    let (namespace, interface): (u64, u32) = if device == 0 {
        let socket: u64 = field(skb, &SKB_SOCKET)?;
        (field(socket, &SOCKET_NAMESPACE)?, 0)
    } else {
        (field(device, &DEVICE_NAMESPACE)?, field(device, &DEVICE_INDEX)?)
    };
    let inode: u32 = field(namespace, &NAMESPACE_INODE)?;
    let came_in_by: u32 = field(skb, &SKB_IN_INTERFACE)?;
    let direction = if interface != 0 && came_in_by == interface { Direction::Ingress } else { Direction::Egress };
    (inode == global(&WATCHED_NAMESPACE)).then_some((interface, direction))
}

/// Whether the packet had passed the counting point of this interface and direction.
///
/// What comes in passes it first, but for the programs that were attached before ours; what goes out passes it last, but
/// for the filters of tc behind ours. Both are told by the mark that the counting point leaves, which lives for as long
/// as the packet stays at its hook.
#[inline(always)]
fn was_counted(skb: u64, interface: u32, direction: Direction, reason: u32) -> bool {
    if let Direction::Ingress = direction
        && reason != global(&TC_INGRESS)
    {
        return true;
    }
    let buffer = skb + u64::from(global(&SKB_CONTROL_BUFFER)) + u64::from(global(&CONTROL_BUFFER_WORDS));
    let left: Option<u32> = read(buffer + (MARK_WORD * size_of::<u32>()) as u64);
    left == Some(counted_mark(interface, direction as u8))
}

/// The memory of a dropped packet from its IP header on.
struct Dropped {
    start: u64,
    /// Offset where what can be read ends.
    readable_bytes: u32,
    bytes: u32,
    gso_bytes: u16,
    gso_segments: u16,
}

impl Dropped {
    #[inline(always)]
    fn new(skb: u64) -> Option<Self> {
        let head: u64 = field(skb, &SKB_HEAD)?;
        let data: u64 = field(skb, &SKB_DATA)?;
        let tail: u32 = field(skb, &SKB_TAIL)?;
        let end: u32 = field(skb, &SKB_END)?;
        let left_bytes: u32 = field(skb, &SKB_LEN)?;
        let network_header: u16 = field(skb, &SKB_NETWORK_HEADER)?;
        let shared = head + u64::from(end);
        let start = head + u64::from(network_header);
        // `data` moves past each header as it is dealt with, and the length shrinks with it: together they still say
        // where the packet ends.
        let end_of_packet = data + u64::from(left_bytes);
        Some(Self {
            start,
            readable_bytes: tail.saturating_sub(u32::from(network_header)),
            bytes: end_of_packet.saturating_sub(start) as u32,
            gso_bytes: field(shared, &SHARED_GSO_SIZE)?,
            gso_segments: field(shared, &SHARED_GSO_SEGMENTS)?,
        })
    }
}

impl Bytes for Dropped {
    #[inline(always)]
    fn need<T: Plain>(&self, at: usize) -> Result<T, Stop> {
        if at + size_of::<T>() > self.readable_bytes as usize {
            return Err(Stop::Short);
        }
        read(self.start + at as u64).ok_or(Stop::Short)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.bytes
    }

    #[inline(always)]
    fn gso_bytes(&self) -> u32 {
        u32::from(self.gso_bytes)
    }

    #[inline(always)]
    fn gso_segments(&self) -> u32 {
        u32::from(self.gso_segments)
    }
}
