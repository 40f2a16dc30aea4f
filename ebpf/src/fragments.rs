//! How a later fragment finds the ports that only its first one holds.

use crate::{
    headers::{Ip, Transport, bytes_of},
    maps,
};
use aya_ebpf::bindings::BPF_ANY;
use flowtap_abi::{Direction, FragmentKey, FragmentPorts};

/// What the fragments of an IPv4 datagram share, but for its identification.
#[inline(always)]
pub(crate) fn key_v4(interface: u32, direction: Direction, ip: &Ip<[u8; 4]>) -> FragmentKey {
    let (src, dst) = (widened(ip.src), widened(ip.dst));
    FragmentKey { interface, src, dst, id: 0, protocol: ip.protocol, direction: direction as u8, version: 4, zero: 0 }
}

/// What the fragments of an IPv6 packet share, but for its identification.
#[inline(always)]
pub(crate) fn key_v6(interface: u32, direction: Direction, ip: &Ip<[u8; 16]>) -> FragmentKey {
    let (src, dst) = (ip.src, ip.dst);
    FragmentKey { interface, src, dst, id: 0, protocol: 0, direction: direction as u8, version: 6, zero: 0 }
}

/// Leaves what a first fragment says. Where that finds no room, its later fragments are counted as unknown.
#[inline(always)]
pub(crate) fn remember(key: FragmentKey, transport: &Transport, protocol: u8) {
    let ports = FragmentPorts { ports: transport.ports, protocol, is_of_a_copy: 0, zero: [0; 2] };
    maps::FRAGMENTS.insert(key, ports, u64::from(BPF_ANY)).unwrap_or_default();
}

/// Finds what the first fragment of a later one said: ports and protocol.
#[inline(always)]
pub(crate) fn recall(key: FragmentKey) -> Option<(Transport, u8)> {
    let known = maps::FRAGMENTS.get_ptr(key)?;
    // SAFETY: an element of the map. Should it make room for another datagram just now, the ports may be that one's:
    // the bound of the map is the bound of this error.
    let known = unsafe { *known };
    Some((Transport { ports: known.ports, ..Transport::NONE }, known.protocol))
}

/// An IPv4 address where sixteen bytes are wanted.
#[inline(always)]
pub(crate) fn widened(address: [u8; 4]) -> [u8; 16] {
    bytes_of([u32::from_ne_bytes(address), 0, 0, 0])
}
