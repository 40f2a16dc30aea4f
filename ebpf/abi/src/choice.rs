//! Which of several targets gets a flow, and from which port: the one definition that both executors use, so that a flow
//! does not move when the other one takes over.
//!
//! Weighted rendezvous: each target draws a number from the flow's hash and its own identity, and the best draw wins. So a
//! target that goes takes only its own flows with it, and gets them back when it returns; no table is kept. With weights
//! the draw is `-ln(u) / weight`, of which the least wins (Schindelhauer and Schomaker, 2005). The kernel has no
//! floating point, so the logarithm is one in fixed point. Everything here is the same on every host.

/// The hash of a flow, the same in both directions. An IPv4 address stands in front and zeros follow. Without ports the
/// flow is told by addresses and protocol alone, as it must be for pieces of a datagram, the first included, so that all
/// of them stay together.
#[inline(always)]
pub const fn flow_hash(src: [u8; 16], dst: [u8; 16], ports: (u16, u16), protocol: u8) -> u64 {
    // Each end is mixed by itself and the two are added, which does not care for their order.
    let ends = end(src, ports.0).wrapping_add(end(dst, ports.1));
    mix(ends ^ protocol as u64)
}

/// What stands for the ports of an ICMP message: its type, and the type that answers it. A message that nothing answers
/// has type and code.
///
/// Authority: Community ID version 1.
#[inline(always)]
pub const fn icmp_ports(protocol: u8, icmp_type: u8, code: u8) -> (u16, u16) {
    let other = if protocol == ICMP {
        match icmp_type {
            // Echo, timestamp, information, address mask.
            8 => 0,
            0 => 8,
            13 | 15 | 17 => icmp_type + 1,
            14 | 16 | 18 => icmp_type - 1,
            // Router solicitation.
            10 => 9,
            9 => 10,
            _ => code,
        }
    } else {
        match icmp_type {
            // Echo, listener query, router and neighbour solicitation, node information, home agent discovery.
            128 | 130 | 133 | 135 | 139 | 144 => icmp_type + 1,
            129 | 131 | 134 | 136 | 140 | 145 => icmp_type - 1,
            _ => code,
        }
    };
    (icmp_type as u16, other as u16)
}

/// What stands for type and code where they can't be read. No type has this number, and none answers it.
pub const NO_ICMP: [u8; 2] = [0xff; 2];

/// What a target draws for a flow: the least wins, and of equal ones the first.
#[inline(always)]
pub const fn draw(flow: u64, identity: u64, inverse_weight: u64) -> u64 {
    let minus_log = ZERO_LOG - log2(mix(flow ^ identity) | 1);
    // The logarithm is below 2^(6 + FRACTION_BITS), and an inverse weight is at most 2^32: no overflow.
    (minus_log + 1) * inverse_weight
}

/// What stands for a weight, 1 to 1000, in a [`draw`].
pub const fn inverse_weight(weight: u16) -> u64 {
    if weight == 0 { 1 << 32 } else { (1 << 32) / weight as u64 }
}

/// What the kernel's tunnel device makes the outer source port of: never zero, which it would take for no hash.
///
/// Kernels differ in whether the last port of the range is one of them, and so in where one port's hashes end. Those that
/// this gives are the last of their port, where all agree.
#[inline(always)]
pub const fn port_hash(flow: u64) -> u32 {
    let mixed = mix_halves(flow as u32 | 1);
    let last = port_number(mixed) << HASH_BITS_OF_A_PORT | ((1 << HASH_BITS_OF_A_PORT) - 1);
    // Mixing is its own inverse.
    mix_halves(last)
}

/// The outer source port of a flow, also if what [`port_hash`] gave is taken for it.
///
/// Authority: `udp_flow_src_port` of the kernel, with the range that our tunnel devices are given; RFC 7348 section 5
/// for that range, whose last port older kernels leave out.
#[inline(always)]
pub const fn source_port(flow: u64) -> u16 {
    SOURCE_PORTS.0 + port_number(mix_halves(flow as u32 | 1)) as u16
}

/// As the kernel does to have the upper half depend on the lower one.
#[inline(always)]
const fn mix_halves(hash: u32) -> u32 {
    hash ^ hash << 16
}

#[inline(always)]
const fn port_number(mixed: u32) -> u32 {
    let (first, last) = SOURCE_PORTS;
    ((mixed as u64 * (last - first) as u64) >> 32) as u32
}

/// The range has 2^14 ports.
const HASH_BITS_OF_A_PORT: u32 = 32 - 14;
const _: () = assert!(SOURCE_PORTS.1 - SOURCE_PORTS.0 == (1 << (32 - HASH_BITS_OF_A_PORT)) - 1);

/// The range that outer source ports are chosen from.
pub const SOURCE_PORTS: (u16, u16) = (49_152, 65_535);

/// SplitMix64's finalizer: every bit of the answer depends on every bit of the number.
#[inline(always)]
pub const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[inline(always)]
const fn end(address: [u8; 16], port: u16) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let (high, low) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]));
    // Spread over all bits, so that ports do not stand for neighbouring addresses.
    let port = (port as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(mix(high ^ port) ^ low)
}

/// The logarithm of a number to base 2, in fixed point: its whole part is the place of the highest bit, and each squaring
/// of what is left brings one bit more.
#[inline(always)]
const fn log2(number: u64) -> u64 {
    let whole = 63 - number.leading_zeros() as u64;
    // 1 <= fraction < 2, as a fixed point number with 31 bits behind the point.
    let mut fraction = (number << (63 - whole)) >> 32;
    let mut log = whole;
    let mut bits = 0;
    while bits < FRACTION_BITS {
        fraction = (fraction * fraction) >> 31;
        let carry = fraction >> 32;
        fraction >>= carry;
        log = log << 1 | carry;
        bits += 1;
    }
    log
}

const FRACTION_BITS: u32 = 16;
/// The logarithm of 2^64.
const ZERO_LOG: u64 = 64 << FRACTION_BITS;
const ICMP: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// The two ways of the kernel: Linux 6 leaves the last port of the range out, Linux 7.3 does not.
    #[test]
    fn all_kernels_make_one_port_of_a_hash() {
        for flow in (0..1 << 20).map(mix).chain([0, 1, u64::MAX, 1 << 32]) {
            let hash = port_hash(flow);
            assert_ne!(hash, 0);
            let mixed = u64::from(hash ^ hash << 16);
            let port = source_port(flow);
            assert_eq!(49_152 + ((mixed * 16_383) >> 32), port.into(), "{flow:x}");
            assert_eq!(49_152 + ((mixed * 16_384) >> 32), port.into(), "{flow:x}");
            assert_eq!(source_port(hash.into()), port);
        }
    }
}
