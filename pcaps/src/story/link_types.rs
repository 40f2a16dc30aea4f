//! Link layers other than Ethernet, each with the same four packets.

use crate::capture::{Capture, Frame, Story};
use crate::cast::{HOST, ROUTER};
use crate::link::cooked::{PacketType, nflog, null, sll, sll_frame, sll_vlan, sll2, sll2_frame};
use crate::link::serial::{
    SLARP, UNICAST, cisco_hdlc, cisco_hdlc_frame, cisco_hdlc_multicast, ppp, ppp_frame, ppp_hdlc,
};
use crate::link::wireless::{
    Shape, acknowledgment, beacon, data, null_function, radiotap_bare, radiotap_two_words, radiotap_with_fcs,
};
use crate::link::{PPP_LCP, arp, ether_type, link_type, mac, pppoe_body, raw};
use crate::packet::Packet;
use crate::story::sample;

/// One capture for each link type.
pub fn captures() -> Vec<Capture> {
    vec![
        Capture::pcap("cooked-v1.pcap", link_type::LINUX_SLL, cooked_v1()),
        Capture::pcap("cooked-v2.pcap", link_type::LINUX_SLL2, cooked_v2()),
        Capture::pcap("raw-ip.pcap", link_type::RAW, raw_ip()),
        Capture::pcap("null.pcap", link_type::NULL, loopback_null()),
        Capture::pcap("loop.pcap", link_type::LOOP, loopback()),
        Capture::pcap("ppp.pcap", link_type::PPP, point_to_point()),
        Capture::pcap("ppp-hdlc.pcap", link_type::PPP_HDLC, point_to_point_hdlc()),
        Capture::pcap("pppoe-bare.pcap", link_type::PPPOE, pppoe_without_ethernet()),
        Capture::pcap("chdlc.pcap", link_type::C_HDLC, cisco()),
        Capture::pcap("wifi.pcap", link_type::IEEE802_11, wifi()),
        Capture::pcap("radiotap.pcap", link_type::RADIOTAP, radiotap()),
        Capture::pcap("nflog.pcap", link_type::NFLOG, netfilter_log()),
    ]
}

/// The direction of each packet of [`sample`], seen from our host.
const WAYS: [PacketType; 4] = [PacketType::Outgoing, PacketType::Host, PacketType::Outgoing, PacketType::Host];

fn cooked_v1() -> Vec<Frame> {
    let mut story = Story::begin();
    for (packet, way) in sample().iter().zip(WAYS) {
        story.send(packet, sll(way));
    }
    // Not from or to this host: nobody can say which way it went.
    for way in [PacketType::OtherHost, PacketType::Broadcast, PacketType::Multicast] {
        story.send(&sample()[0], sll(way));
    }
    story.send(&sample()[0], sll_vlan(PacketType::Outgoing, &[(ether_type::VLAN, 100)]));
    let body = &arp(HOST, ROUTER, false)[14..];
    story.not_ip("ARP", sll_frame(PacketType::Outgoing, &mac(HOST), ether_type::ARP, body));
    story.end()
}

fn cooked_v2() -> Vec<Frame> {
    let mut story = Story::begin();
    for (packet, way) in sample().iter().zip(WAYS) {
        story.send(packet, sll2(way, 2));
    }
    for (packet, way) in sample().iter().zip(WAYS) {
        story.send(packet, sll2(way, 3));
    }
    let body = &arp(HOST, ROUTER, false)[14..];
    story.not_ip("ARP", sll2_frame(PacketType::Outgoing, 2, &mac(HOST), ether_type::ARP, body));
    story.end()
}

fn raw_ip() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), raw);
    story.end()
}

/// The address family of IPv6 differs from one system to the next, and so does its byte order.
fn loopback_null() -> Vec<Frame> {
    let [v4_out, v4_in, v6_out, v6_in] = sample();
    let mut story = Story::begin();
    story.send(&v4_out, null([2, 0, 0, 0])).send(&v4_in, null([0, 0, 0, 2]));
    for family in [10, 24, 28, 30] {
        story.send(&v6_out, null([family, 0, 0, 0])).send(&v6_in, null([0, 0, 0, family]));
    }
    story.not_ip("AppleTalk", [&[16, 0, 0, 0][..], &[0; 20]].concat());
    story.end()
}

fn loopback() -> Vec<Frame> {
    let family = |packet: &Packet| if packet.flow.src.is_ipv4() { [0, 0, 0, 2] } else { [0, 0, 0, 24] };
    let mut story = Story::begin();
    story.send_all(&sample(), |packet| null(family(packet))(packet));
    story.end()
}

fn point_to_point() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), ppp).send_all(&sample(), ppp_hdlc);
    story.not_ip("PPP link control", ppp_frame(PPP_LCP, &[9, 1, 0, 8, 1, 2, 3, 4]));
    story.end()
}

fn point_to_point_hdlc() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), ppp_hdlc);
    story.end()
}

fn pppoe_without_ethernet() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), |packet| pppoe_body(0x0a0b, packet));
    story.end()
}

fn cisco() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), cisco_hdlc).send_all(&sample(), cisco_hdlc_multicast);
    // SLARP keepalive: type 2, two sequence numbers, reliability.
    let keepalive = [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff];
    story.not_ip("SLARP", cisco_hdlc_frame(UNICAST, SLARP, &keepalive));
    story.end()
}

fn wifi() -> Vec<Frame> {
    let mut story = Story::begin();
    story.not_ip("802.11 beacon", beacon()).not_ip("802.11 acknowledgment", acknowledgment());
    for shape in [Shape::ToAccessPoint, Shape::FromAccessPoint, Shape::WithQos, Shape::Bridged] {
        story.send_all(&sample(), data(shape));
    }
    story.not_ip("802.11 null function: a data frame without data", null_function());
    for (why, shape) in [
        ("802.11 encrypted", Shape::Protected),
        ("802.11 several packets in one frame", Shape::Aggregate),
        ("802.11 second fragment", Shape::LaterFragment),
    ] {
        story.refused(why, data(shape)(&sample()[0]));
    }
    story.end()
}

fn radiotap() -> Vec<Frame> {
    let frame = data(Shape::WithQos);
    let mut story = Story::begin();
    story.not_ip("802.11 beacon", radiotap_bare(&beacon()));
    story.send_all(&sample(), |packet| radiotap_bare(&frame(packet)));
    story.send_all(&sample(), |packet| radiotap_with_fcs(&frame(packet)));
    story.send_all(&sample(), |packet| radiotap_two_words(&frame(packet)));
    story.end()
}

fn netfilter_log() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), nflog);
    story.end()
}
