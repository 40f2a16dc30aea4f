//! One bounded pass over a frame: link layer, outermost IP header, ports.
//!
//! Authority: IEEE 802.1Q (tags), RFC 791 (IPv4), RFC 8200 and RFC 7045 (IPv6 and its extension headers), RFC 9293
//! (TCP). Only the part of a frame that the kernel has in one piece can be read in place; a header beyond it stops the
//! pass with [`Stop::Short`], and the caller decides whether to ask for more.

use aya_ebpf::programs::TcContext;
use flowtap_abi::{Marks, Reason};

/// What the first bytes of a frame are.
#[derive(Clone, Copy)]
pub(crate) enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header itself.
    Ip,
}

/// Why a pass ended before its end.
pub(crate) enum Stop {
    /// A header lies beyond what can be read in place.
    Short,
    /// The frame has no flow.
    Refused(Reason),
}

/// A type for which any bytes are a value.
///
/// # Safety
/// It is made of integers only.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: integers, if the element is made of them.
unsafe impl<T: Plain, const COUNT: usize> Plain for [T; COUNT] {}

/// What headers are read from: a frame in place, or the memory of one that the kernel gave up.
pub(crate) trait Bytes {
    /// The bytes at `at` as a value; [`Stop::Short`] where they cannot be read.
    fn need<T: Plain>(&self, at: usize) -> Result<T, Stop>;

    /// Length of the whole frame, readable or not.
    fn len(&self) -> u32;

    /// Payload of one segment if this is a super-packet, else zero.
    fn gso_bytes(&self) -> u32;

    /// The kernel's own number of segments; may be zero.
    fn gso_segments(&self) -> u32;
}

/// A frame as the kernel hands it to a program.
pub(crate) struct Frame<'a> {
    context: &'a TcContext,
    data: usize,
    end: usize,
}

/// Where the IP header is.
pub(crate) struct Network {
    /// Offset in the frame.
    pub(crate) start: usize,
    pub(crate) version: Version,
    /// Identifier of the outermost VLAN tag.
    pub(crate) vlan: Option<u16>,
}

pub(crate) enum Version {
    V4,
    V6,
}

/// What an IP header says, with its extension headers.
pub(crate) struct Ip<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    /// The header that follows.
    pub(crate) protocol: u8,
    pub(crate) fragment: Fragment,
    /// Identification in the order of the wire, of a piece. It stands by itself: what an enum leaves unwritten in one
    /// variant the compiler may read nevertheless, which kernels before 6.3 refuse.
    pub(crate) fragment_id: u32,
    /// Length of the IP packet.
    pub(crate) bytes: u32,
    /// Length of the IP header and all that was walked behind it.
    pub(crate) header_bytes: u32,
    /// Whether all extension headers were walked; if not, there were more than the bound.
    pub(crate) walked: bool,
    /// The protocol that is ICMP beneath this header.
    icmp: u8,
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy)]
pub(crate) enum Fragment {
    None,
    First,
    Later,
}

/// What a transport header says.
pub(crate) struct Transport {
    pub(crate) ports: [u8; 4],
    pub(crate) marks: Marks,
    /// Length of the header, as far as it is repeated in every segment of a super-packet.
    pub(crate) header_bytes: u32,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext) -> Self {
        Self { context, data: context.data(), end: context.data_end() }
    }

    /// The VLAN tag that the device or the kernel took out of the frame; it was the outermost.
    #[inline(always)]
    pub(crate) fn vlan_beside_frame(&self) -> Option<u16> {
        // SAFETY: the context is valid for as long as the program runs.
        let present = unsafe { (*self.context.skb.skb).vlan_present };
        // SAFETY: as above.
        let tag = unsafe { (*self.context.skb.skb).vlan_tci };
        (present != 0).then_some(tag as u16 & VLAN_ID)
    }
}

impl Bytes for Frame<'_> {
    /// The verifier wants to see this very comparison before each access.
    #[inline(always)]
    fn need<T: Plain>(&self, at: usize) -> Result<T, Stop> {
        let from = self.data + at;
        if from + size_of::<T>() > self.end {
            return Err(Stop::Short);
        }
        // SAFETY: the bytes lie within the frame, checked above, and are a value whatever they are. The address may be unaligned for `T`, which the
        // machine and the verifier allow; a read by bytes was measured to cost a fifth of the whole program.
        Ok(unsafe { *(from as *const T) })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.context.len()
    }

    #[inline(always)]
    fn gso_bytes(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.context.skb.skb).gso_size }
    }

    #[inline(always)]
    fn gso_segments(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.context.skb.skb).gso_segs }
    }
}

/// Finds the IP header.
#[inline(always)]
pub(crate) fn network(frame: &Frame<'_>, layer: Layer) -> Result<Network, Stop> {
    if let Layer::Ip = layer {
        // A whole word, as the verifier draws nothing from a comparison for a single byte.
        let [first, ..]: [u8; 4] = frame.need(0)?;
        return match first >> 4 {
            4 => Ok(Network { start: 0, version: Version::V4, vlan: None }),
            6 => Ok(Network { start: 0, version: Version::V6, vlan: None }),
            _ => Err(Stop::Refused(Reason::NonIp)),
        };
    }
    let mut vlan = frame.vlan_beside_frame();
    let mut start = ETHERNET_BYTES;
    let mut ether_type: u16 = frame.need(start - 2)?;
    for _ in 0..=VLAN_TAGS_MAX {
        match ether_type {
            IPV4 => return Ok(Network { start, version: Version::V4, vlan }),
            IPV6 => return Ok(Network { start, version: Version::V6, vlan }),
            ARP => return Err(Stop::Refused(Reason::Arp)),
            VLAN_TAG | SERVICE_TAG | TAG_9100 | TAG_9200 | TAG_9300 => {
                let tag: u16 = frame.need(start)?;
                vlan = vlan.or(Some(u16::from_be(tag) & VLAN_ID));
                ether_type = frame.need(start + 2)?;
                start += VLAN_TAG_BYTES;
            }
            _ => break,
        }
    }
    Err(Stop::Refused(Reason::NonIp))
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    service: u8,
    total_bytes: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    src: u32,
    dst: u32,
}

// SAFETY: integers, as they stand above.
unsafe impl Plain for Ipv4Header {}

/// Reads the IPv4 header at `start`.
#[inline(always)]
pub(crate) fn ipv4(frame: &impl Bytes, start: usize) -> Result<Ip<[u8; 4]>, Stop> {
    let header: Ipv4Header = frame.need(start)?;
    let header_bytes = u32::from(header.version_and_length & 0xf) * 4;
    let frame_bytes = frame.len() - start as u32;
    // A super-packet has no length of its own. Any other is believed, for it is what a capture of the frame would show.
    let bytes = match u32::from(u16::from_be(header.total_bytes)) {
        total_bytes if total_bytes != 0 && frame.gso_bytes() == 0 => total_bytes,
        _ => frame_bytes.max(header_bytes),
    };
    if header.version_and_length >> 4 != 4 {
        return Err(Stop::Refused(Reason::IpVersion));
    }
    if header_bytes < IPV4_BYTES {
        return Err(Stop::Refused(Reason::HeaderLength));
    }
    if bytes < header_bytes {
        return Err(Stop::Refused(Reason::TotalLength));
    }
    if frame_bytes < header_bytes {
        return Err(Stop::Refused(Reason::Truncated));
    }
    let fragment = if header.fragment & (IPV4_OFFSET | IPV4_MORE) == 0 {
        Fragment::None
    } else if header.fragment & IPV4_OFFSET == 0 {
        Fragment::First
    } else {
        Fragment::Later
    };
    Ok(Ip {
        src: header.src.to_ne_bytes(),
        dst: header.dst.to_ne_bytes(),
        protocol: header.protocol,
        fragment,
        fragment_id: u32::from(header.id),
        bytes,
        header_bytes,
        walked: true,
        icmp: ICMP,
    })
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Header {
    version_and_label: u32,
    payload_bytes: u16,
    next_header: u8,
    hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

// SAFETY: integers, as they stand above.
unsafe impl Plain for Ipv6Header {}

#[derive(Clone, Copy)]
#[repr(C)]
struct FragmentHeader {
    next_header: u8,
    reserved: u8,
    offset_and_more: u16,
    id: u32,
}

// SAFETY: integers, as they stand above.
unsafe impl Plain for FragmentHeader {}

/// How far the walk over a packet's extension headers has come.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Extensions {
    /// Length of the IP packet, as far as the frame holds it.
    packet_bytes: u32,
    /// Length of what is behind us.
    pub(crate) header_bytes: u32,
    fragment_id: u32,
    fragment: Fragment,
    /// The header that we stand at.
    protocol: u8,
    /// Whether there is nothing more to walk over.
    pub(crate) walked: bool,
}

impl Extensions {
    /// Goes over one header; whether that was the last.
    #[inline(always)]
    pub(crate) fn step(&mut self, frame: &impl Bytes, start: usize) -> Result<bool, Stop> {
        // A header that is cut is not walked; its own number is the packet's protocol.
        if self.walked || self.header_bytes + EXTENSION_BYTES_MIN > self.packet_bytes {
            self.walked = true;
            return Ok(true);
        }
        let at = start + self.header_bytes as usize;
        if self.protocol == FRAGMENT {
            let piece: FragmentHeader = frame.need(at)?;
            self.protocol = piece.next_header;
            self.header_bytes += EXTENSION_BYTES_MIN;
            self.fragment_id = piece.id;
            if piece.offset_and_more & IPV6_OFFSET != 0 {
                // What follows is the middle of something.
                self.fragment = Fragment::Later;
                self.walked = true;
                return Ok(true);
            }
            if piece.offset_and_more & IPV6_MORE != 0 {
                self.fragment = Fragment::First;
            }
        } else {
            let [next_header, length]: [u8; 2] = frame.need(at)?;
            let extension_bytes = (u32::from(length) + 1) * EXTENSION_BYTES_MIN;
            if self.header_bytes + extension_bytes > self.packet_bytes {
                self.walked = true;
                return Ok(true);
            }
            self.header_bytes += extension_bytes;
            self.protocol = next_header;
        }
        self.walked = !is_extension(self.protocol);
        Ok(self.walked)
    }
}

/// Reads the IPv6 header at `start`, and where the walk behind it begins.
#[inline(always)]
pub(crate) fn ipv6_alone(frame: &impl Bytes, start: usize) -> Result<(Ip<[u8; 16]>, Extensions), Stop> {
    let header: Ipv6Header = frame.need(start)?;
    if header.version_and_label & IPV6_VERSION != IPV6_VERSION_6 {
        return Err(Stop::Refused(Reason::IpVersion));
    }
    let frame_bytes = frame.len() - start as u32;
    // A jumbogram (RFC 2675) and a super-packet have no length of their own.
    let bytes = match u32::from(u16::from_be(header.payload_bytes)) {
        0 if header.next_header == NO_NEXT_HEADER => IPV6_BYTES,
        payload_bytes if payload_bytes != 0 && frame.gso_bytes() == 0 => IPV6_BYTES + payload_bytes,
        _ => frame_bytes,
    };
    let walk = Extensions {
        packet_bytes: bytes.min(frame_bytes),
        header_bytes: IPV6_BYTES,
        fragment_id: 0,
        fragment: Fragment::None,
        protocol: header.next_header,
        walked: !is_extension(header.next_header),
    };
    let ip = Ip {
        src: bytes_of(header.src),
        dst: bytes_of(header.dst),
        protocol: walk.protocol,
        fragment: walk.fragment,
        fragment_id: walk.fragment_id,
        bytes,
        header_bytes: walk.header_bytes,
        walked: walk.walked,
        icmp: ICMPV6,
    };
    Ok((ip, walk))
}

/// Reads the IPv6 header at `start` and walks the extension headers behind it.
#[inline(always)]
pub(crate) fn ipv6(frame: &impl Bytes, start: usize) -> Result<Ip<[u8; 16]>, Stop> {
    let (mut ip, mut walk) = ipv6_alone(frame, start)?;
    for _ in 0..EXTENSIONS_MAX {
        if walk.step(frame, start)? {
            break;
        }
    }
    ip.arrive(&walk);
    Ok(ip)
}

impl<A> Ip<A> {
    /// Takes what a walk has come to.
    #[inline(always)]
    pub(crate) fn arrive(&mut self, walk: &Extensions) {
        let Extensions { header_bytes, fragment_id, fragment, protocol, walked, .. } = *walk;
        (self.header_bytes, self.protocol, self.walked) = (header_bytes, protocol, walked);
        (self.fragment, self.fragment_id) = (fragment, fragment_id);
    }
}

/// Reads what stands behind the IP header, as far as the packet reaches: a packet too short for ports has none.
#[inline(always)]
pub(crate) fn transport<A>(frame: &impl Bytes, start: usize, ip: &Ip<A>) -> Result<Transport, Stop> {
    let at = start + ip.header_bytes as usize;
    let packet_bytes = ip.bytes.min(frame.len() - start as u32);
    let room_bytes = packet_bytes.saturating_sub(ip.header_bytes);
    match ip.protocol {
        TCP if room_bytes >= TCP_FLAGS_END => {
            let ports: u32 = frame.need(at)?;
            let [length, flags]: [u8; 2] = frame.need(at + TCP_LENGTH_AT)?;
            let header_bytes = u32::from(length >> 4) * 4;
            Ok(Transport { ports: ports.to_ne_bytes(), marks: Marks::tcp(flags), header_bytes })
        }
        TCP | UDP | DCCP | SCTP | UDP_LITE if room_bytes >= PORTS_BYTES => {
            let ports: u32 = frame.need(at)?;
            let header_bytes = if ip.protocol == SCTP { SCTP_BYTES } else { UDP_BYTES };
            Ok(Transport { ports: ports.to_ne_bytes(), marks: Marks::NONE, header_bytes })
        }
        protocol if protocol == ip.icmp && room_bytes >= ICMP_TYPE_BYTES => {
            let [icmp_type, code]: [u8; 2] = frame.need(at)?;
            Ok(Transport { marks: Marks::icmp(icmp_type, code), ..Transport::NONE })
        }
        _ => Ok(Transport::NONE),
    }
}

impl Transport {
    /// No ports, no marks.
    pub(crate) const NONE: Self = Self { ports: [0; 4], marks: Marks::NONE, header_bytes: 0 };
}

/// Whether this header is walked: the packet plane walks the same.
#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// The words of an address, as they were read, as bytes.
#[inline(always)]
pub(crate) fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes, and any bytes are valid for both.
    unsafe { core::mem::transmute(words) }
}

/// How many tags are walked before a frame is taken for something else: a service tag, a customer tag, and two spare.
const VLAN_TAGS_MAX: usize = 4;
/// How many extension headers are walked, as in the packet plane. RFC 8200 section 4.1 allows five.
pub(crate) const EXTENSIONS_MAX: usize = 8;

/// No pass reads further than this: tags, an IPv6 header, extension headers of the greatest length, and TCP's.
pub(crate) const HEADERS_BYTES_MAX: u32 = (ETHERNET_BYTES + VLAN_TAGS_MAX * VLAN_TAG_BYTES) as u32
    + IPV6_BYTES
    + EXTENSIONS_MAX as u32 * EXTENSION_BYTES_MAX
    + TCP_FLAGS_END;
/// A fragment header, and any other without more than it must have.
const EXTENSION_BYTES_MIN: u32 = 8;
/// One byte of length, in units of eight bytes after the first eight.
const EXTENSION_BYTES_MAX: u32 = 256 * 8;

pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const VLAN_TAG_BYTES: usize = 4;
const VLAN_ID: u16 = 0x0fff;
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
const PORTS_BYTES: u32 = 4;
const TCP_LENGTH_AT: usize = 12;
const TCP_FLAGS_END: u32 = 14;
const UDP_BYTES: u32 = 8;
const SCTP_BYTES: u32 = 12;
const ICMP_TYPE_BYTES: u32 = 2;

// Words in the order of the wire, so that a packet's need not be turned.
pub(crate) const IPV4: u16 = 0x0800_u16.to_be();
pub(crate) const IPV6: u16 = 0x86dd_u16.to_be();
const ARP: u16 = 0x0806_u16.to_be();
const VLAN_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();
// In use before 802.1ad settled on the one above.
const TAG_9100: u16 = 0x9100_u16.to_be();
const TAG_9200: u16 = 0x9200_u16.to_be();
const TAG_9300: u16 = 0x9300_u16.to_be();
const IPV4_MORE: u16 = 0x2000_u16.to_be();
const IPV4_OFFSET: u16 = 0x1fff_u16.to_be();
const IPV6_VERSION: u32 = 0xf000_0000_u32.to_be();
const IPV6_VERSION_6: u32 = 0x6000_0000_u32.to_be();
const IPV6_OFFSET: u16 = 0xfff8_u16.to_be();
const IPV6_MORE: u16 = 0x0001_u16.to_be();

// IANA's numbers.
const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;
pub(crate) const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
