//! Frames, and what a test run is told beside them.

/// A TCP segment with 64 bytes of payload.
pub(crate) fn tcp() -> Vec<u8> {
    [&[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0][..], &[0; 64]].concat()
}

/// A UDP datagram with 64 bytes of payload.
pub(crate) fn udp() -> Vec<u8> {
    [&[0x9c, 0x40, 0, 53, 0, 72, 0, 0][..], &[0; 64]].concat()
}

/// An echo request with 64 bytes of payload.
pub(crate) fn echo() -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 7, 0, 1][..], &[0; 64]].concat()
}

pub(crate) fn ethernet(ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type[..], payload].concat()
}

/// A VLAN tag and what it tags.
pub(crate) fn tagged(tag: u8, ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0, tag], &ether_type[..], payload].concat()
}

pub(crate) fn ipv4(options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    piece_v4(options, 0, protocol, payload)
}

/// A piece of a datagram: `offset_and_more` as it stands in the header.
pub(crate) fn piece_v4(options: &[u8], offset_and_more: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let piece = offset_and_more.to_be_bytes();
    let header =
        [0x40 | words, 0, total[0], total[1], 0, 1, piece[0], piece[1], 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header, options, payload].concat()
}

pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next_header, 64];
    for last in [1, 2] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

/// The context of a super-packet with segments of so many bytes: `gso_size` of `struct __sk_buff` in
/// `include/uapi/linux/bpf.h`, all else zero.
pub(crate) fn super_packet(segment_bytes: u32) -> [u8; 192] {
    let mut context = [0; 192];
    context[176..180].copy_from_slice(&segment_bytes.to_ne_bytes());
    context
}

pub(crate) const IPV4: [u8; 2] = [8, 0];
pub(crate) const IPV6: [u8; 2] = [0x86, 0xdd];
pub(crate) const VLAN: [u8; 2] = [0x81, 0];
pub(crate) const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
