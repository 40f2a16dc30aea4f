//! Files and frames that are wrong. Each must be refused by name and never end the program.

use crate::capture::{Capture, Frame, Story};
use crate::cast::{HOST, HOST_V6, ROUTER, WEB, WEB_V6};
use crate::link::{
    arp, ether, ether_frame, ether_type, ethernet, label_stack, link_type, mac, mpls, padded, pppoe, snap, tagged, vlan,
};
use crate::packet::{IPV6_HEADER_BYTES, Packet, ends, udp};
use crate::pcap::{self, HEADER_BYTES, RECORD_HEADER_BYTES, Style};
use crate::story::sample;

/// The damaged files, then the file of damaged frames.
pub fn captures() -> Vec<Capture> {
    vec![
        cut_record(),
        lying_length(),
        Capture { name: "empty.pcap", contents: Vec::new(), frames: Vec::new() },
        Capture::pcap("header-only.pcap", link_type::ETHERNET, Vec::new()),
        Capture { name: "bad-magic.bin", contents: b"this is no capture\n".to_vec(), frames: Vec::new() },
        Capture::pcap("garbage-frames.pcap", link_type::ETHERNET, garbage()),
        Capture::pcap("unsupported-link.pcap", link_type::BLUETOOTH_HCI_H4, bluetooth()),
    ]
}

fn sample_frames() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send_all(&sample(), ethernet);
    story.end()
}

/// The file ends ten bytes into the data of its fourth record: three frames are good.
fn cut_record() -> Capture {
    let mut frames = sample_frames();
    let mut contents = pcap::write(Style::default(), link_type::ETHERNET, &frames);
    frames.pop();
    let good_bytes: usize = frames.iter().map(|frame| RECORD_HEADER_BYTES + frame.bytes.len()).sum();
    contents.truncate(HEADER_BYTES + good_bytes + RECORD_HEADER_BYTES + 10);
    Capture { name: "cut-record.pcap", contents, frames }
}

/// The third record says that it holds 2 GiB less one byte: two frames are good.
fn lying_length() -> Capture {
    let mut frames = sample_frames();
    let mut contents = pcap::write(Style::default(), link_type::ETHERNET, &frames);
    frames.truncate(2);
    let good_bytes: usize = frames.iter().map(|frame| RECORD_HEADER_BYTES + frame.bytes.len()).sum();
    let captured_bytes_field = HEADER_BYTES + good_bytes + 8;
    contents[captured_bytes_field..captured_bytes_field + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    Capture { name: "lying-length.pcap", contents, frames }
}

/// A link type that flow logs have no use for.
fn bluetooth() -> Vec<Frame> {
    let mut story = Story::begin();
    story.refused("Bluetooth", vec![0x01, 0x03, 0x0c, 0x00]);
    story.end()
}

/// One good frame at either end, and between them everything that is none.
fn garbage() -> Vec<Frame> {
    let [src, dst] = ends(HOST, 40_001, WEB, 9_001);
    let [src_v6, dst_v6] = ends(HOST_V6, 40_002, WEB_V6, 9_002);
    let (v4, v6) = (udp(src, dst, b"good"), udp(src_v6, dst_v6, b"good"));
    let mut story = Story::begin();
    story.send(&v4, ethernet);
    not_ip(&mut story);
    cut_in_link_layer(&mut story, &v4);
    wrong_v4(&mut story, &v4);
    wrong_v6(&mut story, &v6);
    too_deep(&mut story, &v4);
    story.send(&v6, ethernet);
    story.end()
}

fn not_ip(story: &mut Story) {
    let (us, router) = (mac(HOST), mac(ROUTER));
    story.not_ip("ARP", arp(HOST, ROUTER, false));
    story.not_ip("LLDP", padded(ether_frame(router, [0x01, 0x80, 0xc2, 0, 0, 0x0e], ether_type::LLDP, &[0; 2])));
    story.not_ip("port authentication", padded(ether_frame(us, router, ether_type::EAPOL, &[2, 1, 0, 0])));
    story.not_ip("MACsec", padded(ether_frame(us, router, ether_type::MACSEC, &[0x2c, 0, 0, 0, 0, 1])));
    story.not_ip("Ethernet type nobody has", padded(ether_frame(us, router, 0x9999, b"?")));
    story
        .not_ip("LLC, spanning tree", padded(ether_frame(router, [0x01, 0x80, 0xc2, 0, 0, 0], 3, &[0x42, 0x42, 0x03])));
}

/// Each header is one byte short. These frames were that short on the wire too.
fn cut_in_link_layer(story: &mut Story, packet: &Packet) {
    let cut = |mut frame: Vec<u8>, bytes: usize| {
        frame.truncate(bytes);
        frame
    };
    story.refused("Ethernet header cut", cut(ethernet(packet), 13));
    story.refused("nothing at all", Vec::new());
    story.refused("VLAN tag cut", cut(vlan(&[(ether_type::VLAN, 1)])(packet), 17));
    story.refused("MPLS label cut", cut(mpls(ether_type::MPLS, &[16])(packet), 17));
    story.refused("PPPoE header cut", cut(pppoe(1)(packet), 21));
    story.refused("LLC cut", cut(snap(packet), 16));
    story.refused("SNAP cut", cut(snap(packet), 21));
    story.refused("nothing behind the Ethernet header", cut(ethernet(packet), 14));
}

fn wrong_v4(story: &mut Story, packet: &Packet) {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = packet.bytes.clone();
        change(&mut bytes);
        ether(packet, ether_type::IPV4, &bytes)
    };
    story.refused("IPv4 header cut", with(|bytes| bytes.truncate(19)));
    story.refused("version 6 under the Ethernet type of IPv4", with(|bytes| bytes[0] = 0x65));
    story.refused("version 0", with(|bytes| bytes[0] = 0x05));
    story.refused("IPv4 header length of 16", with(|bytes| bytes[0] = 0x44));
    story.refused(
        "IPv4 header longer than the frame",
        with(|bytes| {
            bytes[0] = 0x4f;
            bytes[3] = 60;
        }),
    );
    story.refused("IPv4 total length shorter than the header", with(|bytes| bytes[2..4].copy_from_slice(&[0, 19])));
}

fn wrong_v6(story: &mut Story, packet: &Packet) {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = packet.bytes.clone();
        change(&mut bytes);
        ether(packet, ether_type::IPV6, &bytes)
    };
    story.refused("IPv6 header cut", with(|bytes| bytes.truncate(IPV6_HEADER_BYTES - 1)));
    story.refused("version 4 under the Ethernet type of IPv6", with(|bytes| bytes[0] = 0x40));
}

/// Deeper than anybody's network: 64 tags, 64 labels.
fn too_deep(story: &mut Story, packet: &Packet) {
    let (first_type, body) = tagged(&[(ether_type::VLAN, 1); 64], ether_type::IPV4, &packet.bytes);
    story.refused("64 VLAN tags", ether(packet, first_type, &body));
    let body = [label_stack(&[16; 64]), packet.bytes.clone()].concat();
    story.refused("64 MPLS labels", ether(packet, ether_type::MPLS, &body));
    // A stack that has no bottom.
    let endless = [0x00, 0x01, 0x00, 0x40].repeat(3);
    story.refused("MPLS stack without an end", ether(packet, ether_type::MPLS, &endless));
}
