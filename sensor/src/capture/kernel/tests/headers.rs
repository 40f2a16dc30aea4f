//! Programs on byte arrays, by the kernel's test run. Each case states what must be counted, worked out from the
//! protocols.

use super::{
    super::{Counts, Drain, Flow, Marks, Reason, Seen, Taps},
    SMALL, Sums,
    frames::*,
    plane,
};
use crate::{capture::Direction, packet::Addresses};
use aya::programs::{TestRun, TestRunOptions};

const V4: Addresses = Addresses::V4 { src: SRC_V4, dst: DST_V4 };
const V6: Addresses = Addresses::V6 { src: SRC_V6, dst: DST_V6 };

/// The kernel gives a test run the loopback device.
const INTERFACE: u32 = 1;

/// What must be counted for one frame.
struct Expected {
    addresses: Addresses,
    protocol: u8,
    ports: (u16, u16),
    packets: u64,
    bytes: u64,
    marks: Marks,
}

const PORTS: (u16, u16) = (SRC_PORT, DST_PORT);
const NO_PORTS: (u16, u16) = (0, 0);

fn expect(addresses: Addresses, protocol: u8, ports: (u16, u16), bytes: u64, marks: Marks) -> Expected {
    Expected { addresses, protocol, ports, packets: 1, bytes, marks: marks.and(Marks::vlan(None)) }
}

/// The context of a test run: super-packets only set two words of it.
fn context(gso_bytes: u32, gso_segments: u32) -> [u8; 192] {
    // Offsets of gso_segs and gso_size in `struct __sk_buff` of include/uapi/linux/bpf.h.
    let mut context = [0; 192];
    context[164..168].copy_from_slice(&gso_segments.to_ne_bytes());
    context[176..180].copy_from_slice(&gso_bytes.to_ne_bytes());
    context
}

fn run(taps: &mut Taps, program: &'static str, frame: &[u8], context: Option<&[u8]>) {
    let options = TestRunOptions { data_in: Some(frame), ctx_in: context, ..TestRunOptions::new() };
    let result = taps.classifier(program).unwrap().test_run(options).unwrap();
    // TC_ACT_UNSPEC: the packet goes on.
    assert_eq!(result.return_value.cast_signed(), -1);
}

fn drain(drain: &mut Drain) -> Sums {
    let mut sums = Sums::default();
    drain.drain(&mut sums).unwrap();
    sums
}

#[track_caller]
fn check(sums: &Sums, name: &str, expected: &Expected) {
    assert_eq!(sums.flows.len(), 1, "{name}: {sums:#?}");
    let (flow, counts) = sums.flows.iter().next().unwrap();
    let (src_port, dst_port) = expected.ports;
    let (addresses, protocol) = (expected.addresses, expected.protocol);
    let direction = Direction::Ingress;
    assert_eq!(*flow, Flow { interface: INTERFACE, direction, addresses, protocol, src_port, dst_port }, "{name}");
    assert_eq!((counts.packets, counts.bytes), (expected.packets, expected.bytes), "{name}");
    assert_eq!(counts.marks, expected.marks, "{name}");
    assert!(counts.first_ns > 0 && counts.first_ns <= counts.last_ns, "{name}: {counts:?}");
}

fn check_case(taps: &mut Taps, kernel: &mut Drain, name: &str, frame: &[u8], expected: &Expected) {
    run(taps, "flow_ingress", frame, None);
    let sums = drain(kernel);
    check(&sums, name, expected);
    assert!(sums.apart.is_empty(), "{name}: {:?}", sums.apart);
}

#[test]
fn ipv4_is_counted_by_flow() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let mut case = |name: &str, packet: Vec<u8>, expected: Expected| {
        check_case(&mut taps, &mut kernel, name, &ethernet(IPV4, &packet), &expected);
    };
    case("TCP SYN", ipv4(6, &tcp(0x02, 10)), expect(V4, 6, PORTS, 50, Marks::tcp(0x02)));
    case("SYN-ACK", ipv4(6, &tcp(0x12, 0)), expect(V4, 6, PORTS, 40, Marks::tcp(0x12)));
    case(
        "40 bytes of options",
        ipv4_with(&[1; 40], 1, 0, 6, &tcp(0x10, 4)),
        expect(V4, 6, PORTS, 84, Marks::tcp(0x10)),
    );
    case("UDP", ipv4(17, &udp(100)), expect(V4, 17, PORTS, 128, Marks::NONE));
    case("SCTP", ipv4(132, &udp(4)), expect(V4, 132, PORTS, 32, Marks::NONE));
    case("DCCP", ipv4(33, &udp(8)), expect(V4, 33, PORTS, 36, Marks::NONE));
    case("UDP-Lite", ipv4(136, &udp(8)), expect(V4, 136, PORTS, 36, Marks::NONE));
    case("ICMP", ipv4(1, &[3, 1, 0, 0, 0, 0, 0, 0]), expect(V4, 1, NO_PORTS, 28, Marks::icmp(3, 1)));
    case("ICMPv6 where it does not belong", ipv4(58, &[128, 0, 0, 0]), expect(V4, 58, NO_PORTS, 24, Marks::NONE));
    case("GRE", ipv4(47, &[0; 24]), expect(V4, 47, NO_PORTS, 44, Marks::NONE));
}

#[test]
fn a_packet_shorter_than_its_transport_header_has_what_it_has() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let mut case = |name: &str, transport: &[u8], expected: Expected| {
        // Ethernet pads to 60 bytes: the padding is no part of the packet, whatever stands in it.
        let mut frame = ethernet(IPV4, &ipv4(6, transport));
        frame.resize(60, 0xff);
        check_case(&mut taps, &mut kernel, name, &frame, &expected);
    };
    let whole = tcp(0x12, 0);
    case("up to the flags", &whole[..14], expect(V4, 6, PORTS, 34, Marks::tcp(0x12)));
    case("not up to the flags", &whole[..13], expect(V4, 6, PORTS, 33, Marks::NONE));
    case("half of the ports", &whole[..2], expect(V4, 6, NO_PORTS, 22, Marks::NONE));
    case("nothing", &[], expect(V4, 6, NO_PORTS, 20, Marks::NONE));
}

#[test]
fn vlan_tags_are_walked_and_the_outermost_kept() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let packet = ipv4(6, &tcp(0x10, 6));
    // Priority 5 stands in the upper bits of the tag's word, and is no part of the identifier.
    let single = tagged(0xa007, IPV4, &packet);
    let double = tagged(0x0064, 0x8100, &single);
    let expected = |id: u16| Expected {
        marks: Marks::tcp(0x10).and(Marks::vlan(Some(id))),
        ..expect(V4, 6, PORTS, 46, Marks::NONE)
    };
    // The kernel takes an outer tag out of the frame before a program sees it only on the way in from a device, so here
    // all tags stand in the frame.
    check_case(&mut taps, &mut kernel, "802.1Q", &ethernet(0x8100, &single), &expected(7));
    check_case(&mut taps, &mut kernel, "802.1ad", &ethernet(0x88a8, &double), &expected(100));
}

#[test]
fn ipv6_extension_headers_are_walked_to_a_bound() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let mut case = |name: &str, packet: Vec<u8>, expected: Expected| {
        check_case(&mut taps, &mut kernel, name, &ethernet(IPV6, &packet), &expected);
    };
    let segment = tcp(0x18, 10);
    case("none", ipv6(6, &segment), expect(V6, 6, PORTS, 70, Marks::tcp(0x18)));
    case("ICMPv6", ipv6(58, &[128, 0, 0, 0]), expect(V6, 58, NO_PORTS, 44, Marks::icmp(128, 0)));
    case("no next header", ipv6(59, &[]), expect(V6, 59, NO_PORTS, 40, Marks::NONE));
    // Hop-by-hop of 16 bytes, routing of 8, destination options of 8: 40 + 32 + 30.
    let walked = extension(43, 1, &extension(60, 0, &extension(6, 0, &segment)));
    case("hop-by-hop, routing, destination", ipv6(0, &walked), expect(V6, 6, PORTS, 102, Marks::tcp(0x18)));
    // The payload of an Authentication Header is not walked to, nor is an extension header that is cut.
    case("authentication", ipv6(51, &[6; 40]), expect(V6, 51, NO_PORTS, 80, Marks::NONE));
    case("cut at its start", ipv6(60, &[6, 0, 0]), expect(V6, 60, NO_PORTS, 43, Marks::NONE));
    case("cut in its middle", ipv6(60, &[6, 3, 0, 0, 0, 0, 0, 0, 0]), expect(V6, 60, NO_PORTS, 49, Marks::NONE));
    let eight = (0..8).fold(segment.clone(), |inner, depth| extension(if depth == 0 { 6 } else { 60 }, 0, &inner));
    case("eight", ipv6(60, &eight), expect(V6, 6, PORTS, 40 + 64 + 30, Marks::tcp(0x18)));

    let nine = extension(60, 0, &eight);
    run(&mut taps, "flow_ingress", &ethernet(IPV6, &ipv6(60, &nine)), None);
    let sums = drain(&mut kernel);
    // The ninth is another destination-options header: that is all that is known.
    check(&sums, "nine", &expect(V6, 60, NO_PORTS, 40 + 72 + 30, Marks::NONE));
    assert_eq!(sums.apart.into_iter().collect::<Vec<_>>(), [((INTERFACE, Reason::ExtensionBound), 1)]);
}

#[test]
fn fragments_belong_to_the_flow_of_their_first() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let (more, offset_185) = (0x2000, 185);
    let first = ipv4_with(&[], 77, more, 17, &udp(1472));
    let later = ipv4_with(&[], 77, offset_185, 17, &[0xcc; 40]);
    let unknown = ipv4_with(&[], 78, offset_185, 17, &[0xcc; 40]);
    for packet in [&first, &later] {
        run(&mut taps, "flow_ingress", &ethernet(IPV4, packet), None);
    }
    let sums = drain(&mut kernel);
    let both = Expected { packets: 2, ..expect(V4, 17, PORTS, 1500 + 60, Marks::NONE) };
    check(&sums, "IPv4", &both);
    assert!(sums.apart.is_empty());

    run(&mut taps, "flow_ingress", &ethernet(IPV4, &unknown), None);
    let sums = drain(&mut kernel);
    check(&sums, "IPv4, first one missing", &expect(V4, 17, NO_PORTS, 60, Marks::NONE));
    assert_eq!(sums.apart.into_iter().collect::<Vec<_>>(), [((INTERFACE, Reason::FragmentUnknown), 1)]);

    // In IPv6 an extension header may follow the first fragment's header, and the later one says nothing of TCP.
    let first = piece(60, 1, 99, &extension(6, 0, &tcp(0x10, 12)));
    let later = piece(60, 5 << 3, 99, &[0xcc; 16]);
    for packet in [&first, &later] {
        run(&mut taps, "flow_ingress", &ethernet(IPV6, &ipv6(44, packet)), None);
    }
    let sums = drain(&mut kernel);
    let both = Expected { packets: 2, ..expect(V6, 6, PORTS, (40 + 8 + 8 + 32) + (40 + 8 + 16), Marks::tcp(0x10)) };
    check(&sums, "IPv6", &both);
    assert!(sums.apart.is_empty());

    // An atomic fragment (RFC 6946) is a whole packet.
    run(&mut taps, "flow_ingress", &ethernet(IPV6, &ipv6(44, &piece(6, 0, 5, &tcp(0x02, 0)))), None);
    check(&drain(&mut kernel), "atomic", &expect(V6, 6, PORTS, 68, Marks::tcp(0x02)));
}

#[test]
fn super_packets_count_as_their_segments() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let mut case = |name: &str, frame: Vec<u8>, gso_bytes: u32, segments: u32, expected: Expected| {
        run(&mut taps, "flow_ingress", &frame, Some(&context(gso_bytes, segments)));
        check(&drain(&mut kernel), name, &expected);
    };
    // 3001 bytes by 500 are six full segments and one of a single byte; each has 40 bytes of headers.
    let expected = Expected { packets: 7, ..expect(V4, 6, PORTS, 3001 + 7 * 40, Marks::tcp(0x18)) };
    case("TCP", ethernet(IPV4, &ipv4(6, &tcp(0x18, 3001))), 500, 0, expected);
    let expected = Expected { packets: 6, ..expect(V4, 6, PORTS, 3000 + 6 * 40, Marks::tcp(0x18)) };
    case("TCP, all full", ethernet(IPV4, &ipv4(6, &tcp(0x18, 3000))), 500, 6, expected);
    let expected = Expected { packets: 3, ..expect(V4, 17, PORTS, 2500 + 3 * 28, Marks::NONE) };
    case("UDP", ethernet(IPV4, &ipv4(17, &udp(2500))), 1000, 0, expected);
    // Hop-by-hop options are repeated too.
    let packet = ipv6(0, &extension(6, 0, &tcp(0x18, 2001)));
    let expected = Expected { packets: 3, ..expect(V6, 6, PORTS, 2001 + 3 * 68, Marks::tcp(0x18)) };
    case("IPv6", ethernet(IPV6, &packet), 1000, 0, expected);
    let tagged = ethernet(0x8100, &tagged(7, IPV4, &ipv4(6, &tcp(0x18, 1000))));
    let expected = Expected {
        packets: 2,
        marks: Marks::tcp(0x18).and(Marks::vlan(Some(7))),
        ..expect(V4, 6, PORTS, 1000 + 2 * 40, Marks::NONE)
    };
    case("VLAN", tagged, 500, 0, expected);
}

#[test]
fn frames_without_a_flow_are_counted_by_reason() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let mut case = |name: &str, frame: Vec<u8>, reason: Reason| {
        run(&mut taps, "flow_ingress", &frame, None);
        let sums = drain(&mut kernel);
        assert!(sums.flows.is_empty(), "{name}: {:?}", sums.flows);
        assert_eq!(sums.apart.into_iter().collect::<Vec<_>>(), [((INTERFACE, reason), 1)], "{name}");
    };
    // 59 bytes, and a total length that says so.
    let packet = ipv4(6, &tcp(0x02, 19));
    let with_first = |first: u8| [&[first], &packet[1..]].concat();
    case("ARP", ethernet(0x0806, &[0; 28]), Reason::Arp);
    case("LLDP", ethernet(0x88cc, &[0; 40]), Reason::NonIp);
    case("more tags than are walked", ethernet(0x8100, &[0x00, 0x01, 0x81, 0x00].repeat(8)), Reason::NonIp);
    // A test run takes whole IP headers only, unless a tag stands before them.
    case("an IPv4 header cut short", ethernet(0x8100, &tagged(7, IPV4, &packet[..19])), Reason::Truncated);
    case(
        "options cut short",
        ethernet(0x8100, &tagged(7, IPV4, &[&[0x4f, 0, 0, 60], &packet[4..]].concat())),
        Reason::Truncated,
    );
    case("a header length of 16", ethernet(IPV4, &with_first(0x44)), Reason::HeaderLength);
    case("version 5", ethernet(IPV4, &with_first(0x55)), Reason::IpVersion);
    case("a total length of 19", ethernet(IPV4, &[&[0x45, 0, 0, 19], &packet[4..]].concat()), Reason::TotalLength);
    case("an IPv6 header cut short", ethernet(0x8100, &tagged(7, IPV6, &ipv6(6, &[])[..39])), Reason::Truncated);
    case("IPv6 with version 4", ethernet(IPV6, &[&[0x40], &ipv6(6, &[])[1..]].concat()), Reason::IpVersion);
}

#[test]
fn frames_without_a_link_layer_are_counted() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    run(&mut taps, "flow_ingress_l3", &ipv4(6, &tcp(0x02, 0)), None);
    check(&drain(&mut kernel), "IPv4", &expect(V4, 6, PORTS, 40, Marks::tcp(0x02)));
    run(&mut taps, "flow_ingress_l3", &ipv6(17, &udp(2)), None);
    check(&drain(&mut kernel), "IPv6", &expect(V6, 17, PORTS, 50, Marks::NONE));
    run(&mut taps, "flow_ingress_l3", &[0; 40], None);
    assert_eq!(drain(&mut kernel).apart.into_iter().collect::<Vec<_>>(), [((INTERFACE, Reason::NonIp), 1)]);
}

#[test]
fn directions_are_apart_and_marks_gather() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    for flags in [0x02, 0x10, 0x11] {
        run(&mut taps, "flow_ingress", &ethernet(IPV4, &ipv4(6, &tcp(flags, 0))), None);
        run(&mut taps, "flow_egress", &ethernet(IPV4, &ipv4(1, &[flags, 0, 0, 0])), None);
    }
    let sums = drain(&mut kernel);
    let counts = |wanted: Direction| -> Counts {
        *sums.flows.iter().find(|(flow, _)| flow.direction == wanted).map(|(_, counts)| counts).unwrap()
    };
    let ingress = counts(Direction::Ingress);
    // SYN, ACK and FIN-ACK: all flags are FIN, SYN and ACK, yet no packet was a SYN-ACK.
    assert_eq!((ingress.marks.tcp_flags(), ingress.marks.cloud_tcp_flags()), (0x13, 0x03));
    let egress = counts(Direction::Egress);
    assert_eq!((egress.packets, egress.bytes), (3, 72));
    assert_eq!(egress.marks.icmp_type_and_code(), Seen::Several);
    assert_eq!(egress.marks.vlan_id(), Seen::One(None));
    assert_eq!(sums.flows.len(), 2);
}
