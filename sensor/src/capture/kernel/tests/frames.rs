//! Frames, put together from headers. Lengths are those of the caller's payload; nothing is taken from the code under
//! test.

/// Addresses and ports that all frames have: 10.0.0.1 and fd00::1, port 40000, to 10.0.0.2 and fd00::2, port 443.
pub(super) const SRC_V4: u32 = 0x0a00_0001;
pub(super) const DST_V4: u32 = 0x0a00_0002;
pub(super) const SRC_V6: u128 = 0xfd00_0000_0000_0000_0000_0000_0000_0001;
pub(super) const DST_V6: u128 = 0xfd00_0000_0000_0000_0000_0000_0000_0002;
pub(super) const SRC_PORT: u16 = 40_000;
pub(super) const DST_PORT: u16 = 443;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;

pub(super) fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A tag and what it tags: the tag's own type stands before it.
pub(super) fn tagged(control: u16, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = control.to_be_bytes().to_vec();
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet with `options` (a multiple of four bytes) and the word of flags and fragment offset.
pub(super) fn ipv4_with(options: &[u8], id: u16, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header_bytes = 20 + options.len();
    let total = u16::try_from(header_bytes + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header_bytes / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SRC_V4.to_be_bytes());
    packet.extend(DST_V4.to_be_bytes());
    packet.extend(options);
    packet.extend(payload);
    packet
}

pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], 1, 0, protocol, payload)
}

pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(SRC_V6.to_be_bytes());
    packet.extend(DST_V6.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An extension header of eight times `1 + more` bytes.
pub(super) fn extension(next_header: u8, more: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, more];
    bytes.resize(8 * (1 + usize::from(more)), 0);
    bytes.extend(payload);
    bytes
}

/// The fragment header of IPv6: `offset_and_more` as it stands there.
pub(super) fn piece(next_header: u8, offset_and_more: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, 0];
    bytes.extend(offset_and_more.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A TCP segment with a header of 20 bytes.
pub(super) fn tcp(flags: u8, payload_bytes: usize) -> Vec<u8> {
    let mut segment = SRC_PORT.to_be_bytes().to_vec();
    segment.extend(DST_PORT.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    segment.resize(20 + payload_bytes, 0xaa);
    segment
}

pub(super) fn udp(payload_bytes: usize) -> Vec<u8> {
    let mut datagram = SRC_PORT.to_be_bytes().to_vec();
    datagram.extend(DST_PORT.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload_bytes).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + payload_bytes, 0xbb);
    datagram
}
