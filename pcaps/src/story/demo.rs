//! A small network's day, in five minutes: the capture that the first look at the program reads.

use std::net::IpAddr;

use crate::capture::{Capture, Story};
use crate::cast::*;
use crate::fragment::fragments;
use crate::icmp::{message, ping, pong};
use crate::link::{arp, ether_type, ethernet, ethernet_padded, link_type, padded, vlan};
use crate::packet::flag::{ACK, RST, SYN};
use crate::packet::{Packet, Segment, ends, tcp, udp};
use crate::payload::{self, DhcpKind, DnsKind};
use crate::random::SplitMix64;
use crate::tcp::TcpConversation;
use crate::time::{MICRO, MILLI, MINUTE, SECOND, START_NS};

/// `demo.pcap`
pub fn captures() -> Vec<Capture> {
    let mut story = Story::begin();
    let mut random = SplitMix64::new(20_260_302);
    boot(&mut story);
    ask_names(&mut story, &mut random);
    browse(&mut story, &mut random);
    administer(&mut story, &mut random);
    be_scanned(&mut story);
    send_large_datagrams(&mut story);
    ping_around(&mut story);
    hear_noise(&mut story);
    vec![Capture::pcap("demo.pcap", link_type::ETHERNET, story.end_in_time_order())]
}

/// Our host's own frames are short; what arrives was padded on the wire.
fn wire(packet: &Packet) -> Vec<u8> {
    if [HOST, HOST_V6, HOST_LINK_LOCAL].contains(&packet.flow.src) { ethernet(packet) } else { ethernet_padded(packet) }
}

/// The first seconds: lease, neighbours, metadata, time, activation.
fn boot(story: &mut Story) {
    story.at(START_NS + 120 * MILLI);
    let [client, everybody] = ends(UNSPECIFIED, 68, BROADCAST, 67);
    let [server, leased] = ends(ROUTER, 67, HOST, 68);
    story.send(&udp(client, everybody, &payload::dhcp(DhcpKind::Discover, HOST, ROUTER)), wire);
    story.send(&udp(server, leased, &payload::dhcp(DhcpKind::Offer, HOST, ROUTER)), wire);
    story.send(&udp(client, everybody, &payload::dhcp(DhcpKind::Request, HOST, ROUTER)), wire);
    story.send(&udp(server, leased, &payload::dhcp(DhcpKind::Ack, HOST, ROUTER)), wire);
    story.not_ip("ARP request", arp(HOST, ROUTER, false));
    story.not_ip("ARP reply", padded(arp(HOST, ROUTER, true)));
    discover_neighbours(story);
    for (index, (host, metadata)) in [(HOST, METADATA), (HOST_V6, METADATA_V6)].into_iter().enumerate() {
        let [client, server] = ends(host, 48_000 + index as u16, metadata, 80);
        let request = payload::http_get("metadata", "/latest/meta-data/instance-id");
        let start_ns = story.now_ns() + 200 * MILLI;
        story.converse(
            &TcpConversation {
                client,
                server,
                request,
                response: payload::http_ok(19),
                start_ns,
                step_ns: 300 * MICRO,
            },
            wire,
        );
    }
    for minute in 0..5 {
        for (index, (host, time)) in [(HOST, TIME), (HOST_V6, TIME_V6)].into_iter().enumerate() {
            let [client, server] = ends(host, 123, time, 123);
            story.at(START_NS + minute * MINUTE + 7 * SECOND + index as u64 * 40 * MILLI);
            story.send(&udp(client, server, &payload::ntp(3)), wire);
            story.send(&udp(server, client, &payload::ntp(4)), wire);
        }
    }
    for (index, (host, activation)) in [(HOST, ACTIVATION), (HOST_V6, ACTIVATION_V6)].into_iter().enumerate() {
        let [client, server] = ends(host, 49_100 + index as u16, activation, 1_688);
        let start_ns = START_NS + 12 * SECOND + index as u64 * SECOND;
        let (request, response) = (vec![0x11; 260], vec![0x22; 184]);
        story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns: MILLI }, wire);
    }
}

/// Duplicate address detection, router and neighbour discovery (RFC 4861, 4862).
fn discover_neighbours(story: &mut Story) {
    let (all_nodes, all_routers) = (v6(0xff02 << 112 | 1), v6(0xff02 << 112 | 2));
    let host_target = crate::link::octets(HOST_V6);
    let router_target = crate::link::octets(ROUTER_V6);
    let own_mac = [&[1, 1][..], &crate::link::mac(HOST)].concat();
    let router_mac = [&[1, 1][..], &crate::link::mac(ROUTER)].concat();
    let router_mac_as_target = [&[2, 1][..], &crate::link::mac(ROUTER)].concat();
    story.send(&message(HOST_LINK_LOCAL, all_routers, 133, 0, [0; 4], &own_mac), wire);
    let lifetimes = [0; 8];
    story.send(
        &message(ROUTER_LINK_LOCAL, all_nodes, 134, 0, [64, 0, 7, 8], &[&lifetimes[..], &router_mac].concat()),
        wire,
    );
    let solicited = |last: u128| v6(0xff02_0000_0000_0000_0000_0001_ff00_0000 | last);
    story.send(&message(v6(0), solicited(0x10), 135, 0, [0; 4], &host_target), wire);
    story.send(&message(HOST_V6, solicited(1), 135, 0, [0; 4], &[router_target.clone(), own_mac].concat()), wire);
    let answer = [router_target, router_mac_as_target].concat();
    story.send(&message(ROUTER_V6, HOST_V6, 136, 0, [0xe0, 0, 0, 0], &answer), wire);
}

/// Names asked of the cloud's resolver by all its addresses, and of another server.
fn ask_names(story: &mut Story, random: &mut SplitMix64) {
    let servers = [(HOST, RESOLVER), (HOST, RESOLVER_LOCAL), (HOST_V6, RESOLVER_V6), (HOST, OWN_DNS)];
    let names = ["www.example.com", "api.example.net", "db.internal.example", "updates.example.org"];
    for minute in 0..5 {
        for (index, (host, server)) in servers.into_iter().enumerate() {
            let id = random.next_u64() as u16;
            let name = names[random.below(names.len() as u64) as usize];
            let [client, server] = ends(host, 50_000 + minute * 10 + index as u16, server, 53);
            let at_ns = START_NS + u64::from(minute) * MINUTE + (15 + random.below(30)) * SECOND;
            story.at(at_ns + random.below(1_000) * MICRO);
            story.send(&udp(client, server, &payload::dns_query(id, name, DnsKind::A)), wire);
            story.send(&udp(server, client, &payload::dns_answer(id, name, WEB)), wire);
        }
    }
}

/// The web: outside over TLS, in both families, and a service of the neighbour's in the clear.
fn browse(story: &mut Story, random: &mut SplitMix64) {
    for minute in 0..5_u16 {
        let sites = [(HOST, WEB, 443), (HOST_V6, WEB_V6, 443), (HOST, NEIGHBOUR, 80)];
        for (index, (host, site, port)) in sites.into_iter().enumerate() {
            let [client, server] = ends(host, 41_000 + minute * 16 + index as u16, site, port);
            let (request, response) = if port == 443 {
                let response_bytes = 4_000 + random.below(9_000) as usize;
                (payload::tls(517, random), payload::tls(response_bytes, random))
            } else {
                let response_bytes = 500 + random.below(4_000) as usize;
                (payload::http_get("inside.example", "/status"), payload::http_ok(response_bytes))
            };
            let start_ns = START_NS + u64::from(minute) * MINUTE + (20 + random.below(25)) * SECOND;
            let step_ns = (2 + random.below(20)) * MILLI;
            story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns }, wire);
        }
    }
    // A download that crosses a minute: its flow has a row in each of the two.
    let [client, server] = ends(HOST, 41_900, WEB, 443);
    let (request, response) = (payload::tls(517, random), payload::tls(24_000, random));
    let start_ns = START_NS + 2 * MINUTE - 700 * MILLI;
    story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns: 40 * MILLI }, wire);
}

/// An administrator logs in from outside; the neighbour's database is reached through VLAN 100.
fn administer(story: &mut Story, random: &mut SplitMix64) {
    let [client, server] = ends(ADMIN, 52_222, HOST, 22);
    let request = [b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), random.bytes(900)].concat();
    let response = [b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), random.bytes(1_700)].concat();
    let start_ns = START_NS + 70 * SECOND;
    story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns: 900 * MILLI }, wire);

    let [client, server] = ends(HOST, 45_432, NEIGHBOUR, 9_000);
    let (request, response) = (vec![0x51; 60], vec![0x44; 2_000]);
    let start_ns = START_NS + 130 * SECOND;
    let conversation = TcpConversation { client, server, request, response, start_ns, step_ns: 5 * MILLI };
    story.converse(&conversation, vlan(&[(ether_type::VLAN, 100)]));
}

/// SYN to forty ports; 22 and 80 answer, the others refuse.
fn be_scanned(story: &mut Story) {
    story.at(START_NS + 150 * SECOND);
    for port in (20..60).map(|port| if port == 59 { 80 } else { port }) {
        let [scanner, door] = ends(SCANNER, 61_000, HOST, port);
        let seq = 0x1000_0000;
        story.send(&tcp(scanner, door, Segment { seq, flags: SYN, ..Segment::default() }), wire);
        let open = [22, 80].contains(&port);
        let flags = if open { SYN | ACK } else { RST | ACK };
        let answer_seq = if open { 0x2000_0000 } else { 0 };
        story.send(&tcp(door, scanner, Segment { seq: answer_seq, ack: seq + 1, flags, payload: &[] }), wire);
        if open {
            story.send(&tcp(scanner, door, Segment { seq: seq + 1, flags: RST, ..Segment::default() }), wire);
        }
    }
}

/// Four kilobytes in three pieces, once in order and once with the first piece last.
fn send_large_datagrams(story: &mut Story) {
    let [src, dst] = ends(HOST, 46_000, WEB, 5_140);
    let whole = udp(src, dst, &[b'x'; 4_000]);
    story.at(START_NS + 200 * SECOND).send_all(&fragments(&whole, 0x1001, 1_480), wire);
    let mut pieces = fragments(&whole, 0x1002, 1_480);
    pieces.rotate_left(1);
    story.at(START_NS + 201 * SECOND).send_all(&pieces, wire);
}

fn ping_around(story: &mut Story) {
    for (index, (asker, asked)) in [(HOST, WEB), (ADMIN, HOST), (HOST_V6, WEB_V6)].into_iter().enumerate() {
        for seq in 1..=4 {
            story.at(START_NS + (210 + u64::from(seq)) * SECOND + index as u64 * 30 * MILLI);
            story.send(&ping(asker, asked, 77, seq), wire);
            story.send(&pong(asked, asker, 77, seq), wire);
        }
    }
}

/// What a network says to itself.
fn hear_noise(story: &mut Story) {
    let say = |story: &mut Story, at_secs: u64, src: IpAddr, dst: IpAddr, port: u16, message: &[u8]| {
        let [src, dst] = ends(src, port, dst, port);
        story.at(START_NS + at_secs * SECOND).send(&udp(src, dst, message), wire);
    };
    for at_secs in [33, 93, 153, 213, 273] {
        say(story, at_secs, NEIGHBOUR, v4(10, 0, 1, 255), 137, &payload::netbios_query(at_secs as u16, "WORKGROUP"));
        let question = payload::mdns_query("_http._tcp.local");
        say(story, at_secs + 1, NEIGHBOUR, v4(224, 0, 0, 251), 5_353, &question);
        say(story, at_secs + 2, NEIGHBOUR_V6, v6(0xff02 << 112 | 0xfb), 5_353, &question);
        story.at(START_NS + (at_secs + 3) * SECOND);
        story.not_ip("ARP request", padded(arp(NEIGHBOUR, HOST, false)));
        story.not_ip("ARP reply", arp(NEIGHBOUR, HOST, true));
    }
}
