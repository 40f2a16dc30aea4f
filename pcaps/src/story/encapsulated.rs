//! What may stand between Ethernet and IP: tags, labels, sessions, LLC.

use crate::capture::{Capture, Frame, Story};
use crate::cast::{HOST, ROUTER};
use crate::link::{
    PPP_LCP, arp, ether, ether_frame, ether_type, label_stack, link_type, mac, mpls, padded, pppoe, pppoe_session,
    snap, tagged, vlan,
};
use crate::story::sample;

/// `vlan-qinq.pcap`, `mpls.pcap`, `pppoe.pcap` and `snap.pcap`
pub fn captures() -> Vec<Capture> {
    vec![
        Capture::pcap("vlan-qinq.pcap", link_type::ETHERNET, vlans()),
        Capture::pcap("mpls.pcap", link_type::ETHERNET, labels()),
        Capture::pcap("pppoe.pcap", link_type::ETHERNET, sessions()),
        Capture::pcap("snap.pcap", link_type::ETHERNET, llc()),
    ]
}

/// One tag, with a priority, two tags of three kinds, priority only (identifier 0), and ARP behind a tag.
fn vlans() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), vlan(&[(ether_type::VLAN, 100)]));
    story.send_all(&sample(), vlan(&[(ether_type::VLAN, 0xe000 | 100)]));
    story.send_all(&sample(), vlan(&[(ether_type::QINQ, 200), (ether_type::VLAN, 100)]));
    story.send_all(&sample(), vlan(&[(ether_type::QINQ_OLD, 201), (ether_type::VLAN, 100)]));
    story.send_all(&sample(), vlan(&[(ether_type::VLAN, 202), (ether_type::VLAN, 100)]));
    story.send_all(&sample(), vlan(&[(ether_type::VLAN, 0)]));
    let plain = arp(HOST, ROUTER, false);
    let (first_type, body) = tagged(&[(ether_type::VLAN, 100)], ether_type::ARP, &plain[14..]);
    story.not_ip("ARP behind a VLAN tag", ether_frame(mac(HOST), [0xff; 6], first_type, &body));
    story.end()
}

/// One label, three labels, the multicast Ethernet type, labels behind a tag, and a pseudowire.
fn labels() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), mpls(ether_type::MPLS, &[16]));
    story.send_all(&sample(), mpls(ether_type::MPLS, &[1_000, 1_001, 0xf_ffff]));
    story.send_all(&sample(), mpls(ether_type::MPLS_MULTICAST, &[17]));
    story.send_all(&sample(), |packet| {
        let body = [label_stack(&[18]), packet.bytes.clone()].concat();
        let (first_type, body) = tagged(&[(ether_type::VLAN, 100)], ether_type::MPLS, &body);
        ether(packet, first_type, &body)
    });
    // An Ethernet pseudowire: behind the labels a control word (RFC 4448), whose first nibble is 0, then a whole frame.
    let inner = crate::link::ethernet(&sample()[0]);
    let body = [label_stack(&[16, 17]), vec![0; 4], inner].concat();
    story.not_ip("MPLS pseudowire", ether_frame(mac(ROUTER), mac(HOST), ether_type::MPLS, &body));
    story.end()
}

/// Session frames, then discovery, link control and echo, which carry no packet.
fn sessions() -> Vec<Frame> {
    let mut story = Story::begin();
    // PADI (RFC 2516 section 5.1): code 9, session 0, a service name tag without a name.
    let padi = [0x11, 0x09, 0, 0, 0, 4, 0x01, 0x01, 0, 0];
    let frame = padded(ether_frame(mac(HOST), [0xff; 6], ether_type::PPPOE_DISCOVERY, &padi));
    story.not_ip("PPPoE discovery", frame);
    // LCP echo request (RFC 1661 section 5.8).
    let lcp = pppoe_session(0x0a0b, PPP_LCP, &[9, 1, 0, 8, 1, 2, 3, 4]);
    story.not_ip("PPP link control", padded(ether_frame(mac(HOST), mac(ROUTER), ether_type::PPPOE_SESSION, &lcp)));
    story.send_all(&sample(), pppoe(0x0a0b));
    story.end()
}

/// SNAP with OUI zero, then what else LLC carries: spanning tree, Cisco discovery (SNAP with another OUI), IPX.
fn llc() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), snap);
    let to = |group: [u8; 6], body: &[u8]| padded(ether_frame(mac(ROUTER), group, body.len() as u16, body));
    let stp = [&[0x42, 0x42, 0x03][..], &[0; 35]].concat();
    story.not_ip("LLC, spanning tree", to([0x01, 0x80, 0xc2, 0, 0, 0], &stp));
    let cdp = [&[0xaa, 0xaa, 0x03, 0, 0, 0x0c, 0x20, 0x00][..], &[2, 180, 0, 0]].concat();
    story.not_ip("SNAP, Cisco discovery", to([0x01, 0, 0x0c, 0xcc, 0xcc, 0xcc], &cdp));
    let ipx = [&[0xff, 0xff, 0x00, 0x1e][..], &[0; 26]].concat();
    story.not_ip("raw 802.3, IPX", to([0xff; 6], &ipx));
    story.end()
}
