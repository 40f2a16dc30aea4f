//! What the mirroring programs are told, and what they count.
//!
//! All tables hold two generations side by side: keys and indexes of one never meet those of the other, and one word
//! ([`MirrorState`]) says which one a packet is judged by. A packet is looked up in each dimension (protocol, addresses,
//! ports, service) and finds a set of rules there; the sets are met, and the first rule left decides.

use crate::Direction;

/// Rules that one interface and direction can have, over all its sessions.
pub const RULES_MAX: usize = 256;
/// Words of a [`RuleSet`].
pub const RULE_WORDS: usize = RULES_MAX / 64;
/// Sessions of one generation.
pub const SESSIONS_MAX: u32 = 64;
/// Targets of one session.
pub const TARGETS_OF_SESSION_MAX: u32 = 16;
/// Lists of rules of one generation: two for each different set of sessions that some interface has.
pub const LISTS_MAX: u32 = 128;
/// Rules of one generation, over all lists.
pub const RULES_TOTAL_MAX: u32 = 1 << 13;
/// Different rule sets of one generation.
pub const SETS_MAX: u32 = 1 << 14;
/// Port intervals of one generation, over all lists.
pub const INTERVALS_MAX: u32 = 1 << 15;
/// Steps of the search among the port intervals of one list: one more than twice its rules is the most there can be.
pub const INTERVAL_STEPS: u32 = 10;
/// Different UDP ports that all targets together can have: each has a tunnel device of its own.
pub const TUNNEL_PORTS_MAX: usize = 4;
/// Numbers of protocols.
pub const PROTOCOLS: u32 = 256;

/// The upper bits of the mark that every copy carries once it is encapsulated. No copy is mirrored or counted again.
pub const COPY_MARK: u32 = 0xf10a_7000;
/// Which bits of a mark these are. The lower ones are a [`CopyOrigin`].
pub const COPY_MARK_MASK: u32 = 0xffff_f000;
/// In a mark: a copy past the IP stack, whose lower bits are not an origin but the account it is counted in.
pub const COPY_DIRECT: u32 = 0x800;
/// First word of the control block of a copy on its way to our tunnel device.
pub const COPY_MAGIC: u32 = 0x7461_7043;

/// Which word of that control block is a [`CopySize`].
pub const COPY_SIZE_WORD: usize = 4;

/// Whose copy it is, in a few bits: the session's slot, and the direction of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOrigin(pub u32);

impl CopyOrigin {
    /// Of that slot and [`Direction`].
    #[inline(always)]
    pub const fn new(slot: u32, direction: u32) -> Self {
        Self(if direction == Direction::Egress as u32 { slot | EGRESS } else { slot })
    }

    /// The session's slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 & !EGRESS
    }

    /// The direction's number.
    #[inline(always)]
    pub const fn direction(self) -> u32 {
        if self.0 & EGRESS == 0 { Direction::Ingress as u32 } else { Direction::Egress as u32 }
    }
}

/// The bit that says so.
const EGRESS: u32 = COPY_DIRECT >> 1;

/// What a copy is on the wire, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySize(pub u32);

impl CopySize {
    /// So many frames, the longest of so many bytes. Either is the largest that there is where it does not fit.
    #[inline(always)]
    pub const fn new(frames: u64, longest_bytes: u32) -> Self {
        let frames = if frames > u16::MAX as u64 { u16::MAX as u32 } else { frames as u32 };
        let longest_bytes = if longest_bytes > u16::MAX as u32 { u16::MAX as u32 } else { longest_bytes };
        Self(frames << 16 | longest_bytes)
    }

    /// Wire frames.
    #[inline(always)]
    pub const fn frames(self) -> u32 {
        self.0 >> 16
    }

    /// Length of the longest, its Ethernet header included.
    #[inline(always)]
    pub const fn longest_bytes(self) -> u32 {
        self.0 & 0xffff
    }
}

/// Rules by their number in the list, lowest bit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(transparent)]
pub struct RuleSet(pub [u64; RULE_WORDS]);

/// What every packet is judged by: the word by which generations are swapped, and what they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct MirrorState {
    /// 0 or 1.
    pub generation: u32,
    /// Index of the device that gives copies a link layer which have none; 0 while there is none.
    pub link_device: u32,
}

/// Destination and source of the Ethernet header that a copy without one gets: locally administered.
pub const MADE_ADDRESSES: [u8; 12] = [0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01];

/// The key of a list: interface in the upper half, generation and direction in the lower.
pub const fn list_key(interface: u32, generation: u32, direction: Direction) -> u64 {
    ((interface as u64) << 32) | ((generation as u64 & 1) << 8) | direction as u64
}

/// All rules of one interface and direction. Indexes count from the start of the whole table, generation included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct RuleList {
    /// Words of the rule sets that are in use.
    pub words: u32,
    /// Where its rules begin.
    pub rules: u32,
    /// Where its [`PROTOCOLS`] sets begin in the table of protocols.
    pub protocols: u32,
    /// What stands before its source blocks in the prefix tables; its destination blocks have the next number.
    pub prefixes: u32,
    /// The sets of ends that all addresses have alike, so that nothing stands in the prefix tables; [`NOT_ALIKE`] for
    /// others. IPv4 source and destination, IPv6 source and destination.
    pub anywhere: [u32; 4],
    /// Port intervals of the source.
    pub source_ports: Intervals,
    /// Port intervals of the destination.
    pub destination_ports: Intervals,
    /// The set of rules that ask for no port, which is all that a packet without ports can match.
    pub portless: u32,
    /// Sets by service: none, `dns`, `dhcp`, `metadata`, `time`, `activation`.
    pub services: [u32; 6],
    /// Whether any rule asks for a service.
    pub has_services: u32,
    /// Which [`KnownAddress`]es are those of services here.
    pub known_set: u32,
    /// UDP ports of all targets; where there are fewer than four, some stand here more than once.
    pub tunnel_ports: [u16; TUNNEL_PORTS_MAX],
}

/// No set: it comes of the address.
pub const NOT_ALIKE: u32 = u32::MAX;

/// Where the port intervals of one end are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Intervals {
    /// The first one, which begins with port 0.
    pub first: u32,
    /// How many; at least one.
    pub count: u32,
}

/// Ports from one number up to the next interval's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Interval {
    /// The lowest port.
    pub start: u32,
    /// The set of rules that take it.
    pub set: u32,
}

/// One rule, as far as it matters once it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct MirrorRule {
    /// Slot of its session.
    pub session: u16,
    /// The number of the rule after the last of its session: where a reject goes on.
    pub session_end: u16,
    /// 1 to accept, 0 to reject.
    pub accept: u16,
    /// Always zero.
    pub zero: u16,
}

/// Prefix of an IPv4 block: list and address. The list's 32 bits are part of the prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct PrefixV4 {
    /// [`RuleList::prefixes`].
    pub list: u32,
    /// In the order of the wire.
    pub address: [u8; 4],
}

/// Prefix of an IPv6 block, likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct PrefixV6 {
    /// [`RuleList::prefixes`].
    pub list: u32,
    /// In the order of the wire.
    pub address: [u8; 16],
}

/// An address with a part in something: a service's, or a target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct KnownAddress {
    /// An IPv4 address stands in front and zeros follow.
    pub address: [u8; 16],
    /// 4 or 6.
    pub version: u32,
    /// Who knows it: a generation, by its number, the targets; interfaces the services, by [`RuleList::known_set`].
    pub set: u32,
}

/// What an address is known for.
pub mod known {
    /// The cloud's resolver.
    pub const RESOLVER: u32 = 1;
    /// Instance metadata.
    pub const METADATA: u32 = 2;
    /// Time sync.
    pub const TIME: u32 = 4;
    /// Licence activation.
    pub const ACTIVATION: u32 = 8;
    /// A target of copies.
    pub const TARGET: u32 = 16;
}

/// One session, as far as the programs need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct MirrorSession {
    /// How much of its buckets a packet takes.
    pub packets: Cost,
    /// How much a byte takes.
    pub bytes: Cost,
    /// Network identifier.
    pub vni: u32,
    /// How many of its targets are in use.
    pub targets: u32,
    /// 1: a copy to each target; 0: one copy, to the target of the flow.
    pub replicate: u32,
    /// Bytes of each frame that are sent; 0 for all.
    pub length_bytes: u32,
    /// 1: frames that do not fit the path are skipped; 0: their outer packets are fragmented.
    pub skip_too_big: u32,
    /// Always zero.
    pub zero: u32,
}

/// A rate, as time that each unit takes: a token bucket kept as the time until which it is spoken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Cost {
    /// Nanoseconds a unit, shifted left by [`COST_SHIFT`]; 0 for no limit.
    pub ns_shifted: u64,
    /// Nanoseconds that a full bucket holds.
    pub burst_ns: u64,
}

/// See [`Cost`].
pub const COST_SHIFT: u32 = 10;

/// When the buckets of a session are full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Buckets {
    /// In nanoseconds of the monotonic clock.
    pub packets_until_ns: u64,
    /// Likewise.
    pub bytes_until_ns: u64,
}

/// One target of one session. They stand at `slot * TARGETS_OF_SESSION_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct MirrorTarget {
    /// Distinguishes it from others in the choice by flow.
    pub identity: u64,
    /// 2^32 divided by its weight.
    pub inverse_weight: u64,
    /// An IPv4 address in front, zeros behind it.
    pub address: [u8; 16],
    /// 4 or 6.
    pub version: u32,
    /// Index of the tunnel device.
    pub device: u32,
    /// 1: it may get copies; 0: it is down.
    pub healthy: u32,
    /// The largest frame that fits the path with its outer headers.
    pub frame_bytes_max: u32,
    /// 1: the outer header forbids fragmentation.
    pub dont_fragment: u32,
    /// Always zero.
    pub zero: u32,
}

/// The way of a target's copies past the IP stack: out of a device, to a neighbour there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct DirectPath {
    /// Index of the device that they leave by; 0 while there is no such way.
    pub device: u32,
    /// Index of the device before which the kernel makes wire frames of what has its outer headers; 0 if there is none.
    pub segmenter: u32,
    /// The longest wire frame that may be taken.
    pub frame_bytes_max: u32,
    /// 1: the next copy goes by the tunnel device, whoever it is, so that the kernel goes on knowing the neighbour.
    pub ask: u32,
    /// Which [`DirectCounts`] they are counted in.
    pub account: u32,
    /// Of the outer IP header as it stands in `head`: the sum of its words, as they lie there.
    pub sum: u32,
    /// 1: what leaves may be fragmented, so each has an identification of its own.
    pub identifies: u32,
    /// Fills up to whole words.
    pub zero: u32,
    /// The outer headers in the order of the wire, Ethernet to VXLAN: what differs from copy to copy is zero, and so is the
    /// room behind them, for the frame's own Ethernet header.
    pub head: [u64; DIRECT_HEAD_BYTES / 8],
}

/// Bytes of the outer headers: Ethernet, IPv4, UDP, VXLAN.
pub const DIRECT_OUTER_BYTES: usize = 14 + 20 + 8 + 8;
/// Bytes of these and of an Ethernet header.
pub const DIRECT_HEAD_BYTES: usize = DIRECT_OUTER_BYTES + 14;
/// The longest frame whose checksum is looked at: that must not take long.
pub const SMALL_FRAME_BYTES_MAX: u32 = 256;
/// Accounts of what went past the IP stack. A tunnel device has that of the index it had first, modulo this, so that of two
/// runs in one network namespace each knows its own.
pub const DIRECT_ACCOUNTS: u32 = 1 << 10;

/// What went past the IP stack in place of one tunnel device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct DirectCounts {
    /// Wire frames that were handed on, to the device or to the segmenter.
    pub handed: u64,
    /// Frames of these that were dropped on the way out, as for want of room.
    pub dropped: u64,
}

/// What became of copies that a rule asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum CopyOutcome {
    /// A rule asked for them: the sum of all others but the last two.
    Matched = 0,
    /// Handed to the tunnel device.
    Mirrored = 1,
    /// The session's rate was spent.
    RateLimited = 2,
    /// With their outer headers they do not fit the path, and the session skips such.
    TooBig = 3,
    /// No target is healthy.
    NoTarget = 4,
    /// The tunnel device is gone, or down, or there is no route to the target.
    NoDevice = 5,
    /// The kernel had no memory for the copy.
    NoMemory = 6,
    /// The tunnel device did not take it: no route, or a program of somebody else there.
    Refused = 7,
    /// The frame has no link layer, and there is no device to give it one.
    NoLinkLayer = 8,
    /// Counted beside the others: those of the mirrored frames whose outer packets are fragmented on the path.
    Fragmented = 9,
    /// Counted beside the others: those of the mirrored frames that were cut to the session's packet length, and the bytes
    /// cut off.
    Cut = 10,
}

impl CopyOutcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Matched,
        Self::Mirrored,
        Self::RateLimited,
        Self::TooBig,
        Self::NoTarget,
        Self::NoDevice,
        Self::NoMemory,
        Self::Refused,
        Self::NoLinkLayer,
        Self::Fragmented,
        Self::Cut,
    ];
}

/// Copies of one session and direction, by [`CopyOutcome`]: wire frames and their bytes, the Ethernet header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct CopyCounts {
    /// Frames.
    pub frames: [u64; CopyOutcome::ALL.len()],
    /// Their bytes.
    pub bytes: [u64; CopyOutcome::ALL.len()],
}

/// What the tap did not show to any rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Unjudged {
    /// Our own copies, and what targets send back about them.
    OwnCopy = 0,
    /// The kernel had no memory to bring a frame's headers together.
    NotGathered = 1,
}

impl Unjudged {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::OwnCopy, Self::NotGathered];
}

/// A program that a killed run must not leave at work, by its place in the array that it is called through where there are
/// no links of TCX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Held {
    /// What comes in, with Ethernet headers.
    Ingress = 0,
    /// What goes out, with Ethernet headers.
    Egress = 1,
    /// What comes in, without link layer.
    IngressBare = 2,
    /// What goes out, without link layer.
    EgressBare = 3,
    /// What cuts copies, with Ethernet headers.
    Cut = 4,
    /// The same without link layer.
    CutBare = 5,
}

/// Places in that array.
pub const HELD_PROGRAMS: u32 = 6;

// Keys of maps and what is copied to user space have no padding.
const _: () = {
    assert!(size_of::<RuleSet>() == 32);
    assert!(size_of::<RuleList>() == 92);
    assert!(size_of::<MirrorRule>() == 8);
    assert!(size_of::<PrefixV4>() == 8);
    assert!(size_of::<PrefixV6>() == 20);
    assert!(size_of::<KnownAddress>() == 24);
    assert!(size_of::<MirrorSession>() == 56);
    assert!(size_of::<MirrorTarget>() == 56);
    assert!(size_of::<DirectPath>() == 96);
    assert!(size_of::<DirectCounts>() == 16);
    assert!(size_of::<CopyCounts>() == 176);
    // A mark has room for every slot of both generations.
    assert!(2 * SESSIONS_MAX <= EGRESS);
    assert!(DIRECT_ACCOUNTS < COPY_DIRECT);
    assert!(COPY_DIRECT & COPY_MARK_MASK == 0);
    assert!(COPY_MARK & !COPY_MARK_MASK == 0);
    // Every rule brings at most two bounds of intervals, and the search halves what is left at each step.
    assert!(2 * RULES_MAX < 1 << INTERVAL_STEPS);
};
