//! The traffic that AWS's flow logs leave out, each class in both directions, and its look-alikes that they keep.
//!
//! Authority: AWS, "Flow log limitations". The local end is [`HOST`] in subnet 10.0.1.0/24 of VPC 10.0.0.0/16, or
//! [`HOST_V6`] in 2001:db8:1:1::/64.

use std::net::IpAddr;

use crate::capture::{Capture, Story};
use crate::cast::*;
use crate::icmp::{ping, pong};
use crate::link::{ethernet, link_type};
use crate::packet::{ends, udp};
use crate::payload::{self, DhcpKind, DnsKind};
use crate::tcp::TcpConversation;
use crate::time::MILLI;

/// `services-v4.pcap` and `services-v6.pcap`
pub fn captures() -> Vec<Capture> {
    vec![
        Capture::pcap("services-v4.pcap", link_type::ETHERNET, v4_services()),
        Capture::pcap("services-v6.pcap", link_type::ETHERNET, v6_services()),
    ]
}

fn v4_services() -> Vec<crate::capture::Frame> {
    let mut story = Story::begin();
    ask_dns(&mut story, HOST, RESOLVER, 50_001);
    ask_dns(&mut story, HOST, RESOLVER_LOCAL, 50_002);
    ask_dns_over_tcp(&mut story, HOST, RESOLVER, 50_003);
    ask_dns(&mut story, HOST, OWN_DNS, 50_004);
    ask_dns_over_tcp(&mut story, HOST, OWN_DNS, 50_005);

    let [client, everybody] = ends(UNSPECIFIED, 68, BROADCAST, 67);
    let [server, leased] = ends(ROUTER, 67, HOST, 68);
    story.send(&udp(client, everybody, &payload::dhcp(DhcpKind::Discover, HOST, ROUTER)), ethernet);
    story.send(&udp(server, leased, &payload::dhcp(DhcpKind::Offer, HOST, ROUTER)), ethernet);
    story.send(&udp(client, everybody, &payload::dhcp(DhcpKind::Request, HOST, ROUTER)), ethernet);
    story.send(&udp(server, leased, &payload::dhcp(DhcpKind::Ack, HOST, ROUTER)), ethernet);
    // A renewal goes straight to the server.
    story.send(&udp(leased, server, &payload::dhcp(DhcpKind::Request, HOST, ROUTER)), ethernet);

    call(&mut story, HOST, 50_010, METADATA, 80);
    call(&mut story, HOST, 50_011, WEB, 80);
    ask_time(&mut story, HOST, TIME);
    ask_time(&mut story, HOST, OWN_TIME);
    call(&mut story, HOST, 50_020, ACTIVATION, 1_688);
    call(&mut story, HOST, 50_021, ACTIVATION_2, 1_688);
    call(&mut story, HOST, 50_022, WEB, 1_688);
    story.send(&ping(HOST, ROUTER, 1, 1), ethernet).send(&pong(ROUTER, HOST, 1, 1), ethernet);
    story.send(&ping(HOST, NEIGHBOUR, 1, 1), ethernet).send(&pong(NEIGHBOUR, HOST, 1, 1), ethernet);
    mirror(&mut story, HOST, NEIGHBOUR);
    mirror(&mut story, NEIGHBOUR, HOST);
    story.end()
}

fn v6_services() -> Vec<crate::capture::Frame> {
    let mut story = Story::begin();
    ask_dns(&mut story, HOST_V6, RESOLVER_V6, 50_001);
    ask_dns_over_tcp(&mut story, HOST_V6, RESOLVER_V6, 50_002);
    ask_dns(&mut story, HOST_V6, WEB_V6, 50_003);

    // Solicit and reply (RFC 8415 section 7.3) between the link-local addresses.
    let [client, servers] = ends(HOST_LINK_LOCAL, 546, v6(0xff02_0000_0000_0000_0000_0000_0001_0002), 547);
    let [server, _] = ends(v6(0xfe80 << 112 | 0x99), 547, HOST_LINK_LOCAL, 546);
    story.send(&udp(client, servers, &payload::dhcpv6(1)), ethernet);
    story.send(&udp(server, client, &payload::dhcpv6(7)), ethernet);

    call(&mut story, HOST_V6, 50_010, METADATA_V6, 80);
    call(&mut story, HOST_V6, 50_011, WEB_V6, 80);
    ask_time(&mut story, HOST_V6, TIME_V6);
    ask_time(&mut story, HOST_V6, WEB_V6);
    call(&mut story, HOST_V6, 50_020, ACTIVATION_V6, 1_688);
    call(&mut story, HOST_V6, 50_021, WEB_V6, 1_688);
    story.send(&ping(HOST_V6, ROUTER_V6, 1, 1), ethernet).send(&pong(ROUTER_V6, HOST_V6, 1, 1), ethernet);
    let (own, router) = (HOST_LINK_LOCAL, ROUTER_LINK_LOCAL);
    story.send(&ping(own, router, 1, 1), ethernet).send(&pong(router, own, 1, 1), ethernet);
    story.send(&ping(HOST_V6, NEIGHBOUR_V6, 1, 1), ethernet).send(&pong(NEIGHBOUR_V6, HOST_V6, 1, 1), ethernet);
    mirror(&mut story, HOST_V6, NEIGHBOUR_V6);
    mirror(&mut story, NEIGHBOUR_V6, HOST_V6);
    story.end()
}

fn ask_dns(story: &mut Story, host: IpAddr, server: IpAddr, port: u16) {
    let [client, server] = ends(host, port, server, 53);
    story.send(&udp(client, server, &payload::dns_query(port, "example.com", DnsKind::A)), ethernet);
    story.send(&udp(server, client, &payload::dns_answer(port, "example.com", WEB)), ethernet);
}

fn ask_dns_over_tcp(story: &mut Story, host: IpAddr, server: IpAddr, port: u16) {
    let [client, server] = ends(host, port, server, 53);
    let request = payload::dns_over_tcp(&payload::dns_query(port, "example.com", DnsKind::A));
    let response = payload::dns_over_tcp(&payload::dns_answer(port, "example.com", WEB));
    let start_ns = story.now_ns();
    story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns: MILLI }, ethernet);
}

fn ask_time(story: &mut Story, host: IpAddr, server: IpAddr) {
    let [client, server] = ends(host, 123, server, 123);
    story.send(&udp(client, server, &payload::ntp(3)), ethernet);
    story.send(&udp(server, client, &payload::ntp(4)), ethernet);
}

/// A short TCP exchange: 6 packets and 304 bytes one way (IPv4), 4 and 244 the other; 20 more a packet over IPv6.
fn call(story: &mut Story, host: IpAddr, port: u16, server: IpAddr, server_port: u16) {
    let [client, server] = ends(host, port, server, server_port);
    let (request, response) = (vec![b'q'; 60], vec![b'r'; 80]);
    let start_ns = story.now_ns();
    story.converse(&TcpConversation { client, server, request, response, start_ns, step_ns: MILLI }, ethernet);
}

/// A mirrored copy on its way to a target: VXLAN around a frame.
fn mirror(story: &mut Story, host: IpAddr, target: IpAddr) {
    let [host, target] = ends(host, 65_101, target, 4_789);
    let copied = ethernet(&ping(HOST, WEB, 9, 9));
    story.send(&udp(host, target, &payload::vxlan(7, &copied)), ethernet);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Flow;

    #[test]
    fn a_call_has_the_totals_that_its_comment_gives() {
        let mut story = Story::begin();
        call(&mut story, HOST, 5, METADATA, 80);
        let capture = Capture::pcap("call.pcap", link_type::ETHERNET, story.end());
        let rows = crate::expected::totals(&capture);
        let request = Flow { src: HOST, dst: METADATA, src_port: 5, dst_port: 80, protocol: 6 };
        let response = Flow { src: METADATA, dst: HOST, src_port: 80, dst_port: 5, protocol: 6 };
        // 44 + 40 + 100 + 40 + 40 + 40, and 44 + 40 + 120 + 40.
        assert_eq!((rows[&request].packets, rows[&request].ip_bytes), (6, 304));
        assert_eq!((rows[&response].packets, rows[&response].ip_bytes), (4, 244));
    }
}
