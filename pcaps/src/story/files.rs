//! Kinds of capture files: precisions, byte orders, the modified format, sections and interfaces.

use crate::capture::{Capture, Frame};
use crate::link::cooked::PacketType;
use crate::link::{ethernet, link_type, raw};
use crate::packet::{Packet, ends, udp};
use crate::pcap::{self, Endian, Precision, Style};
use crate::pcapng::{Interface, Resolution, Section, Way};
use crate::story::sample;
use crate::time::{MICRO, MILLI, SECOND, START_NS};

/// `nanos-be.pcap`, `kuznetzov.pcap` and `sections.pcapng`
pub fn captures() -> Vec<Capture> {
    vec![nanos(), kuznetzov(), sections()]
}

/// Nanoseconds, big endian; times that microseconds could not tell.
fn nanos() -> Capture {
    let time_ns = |index: u64| START_NS + index * SECOND + 123_456_789;
    let frames: Vec<Frame> =
        sample().iter().zip(0..).map(|(packet, index)| Frame::around(time_ns(index), packet, ethernet)).collect();
    let style = Style { endian: Endian::Big, precision: Precision::Nanos, ..Style::default() };
    Capture { name: "nanos-be.pcap", contents: pcap::write(style, link_type::ETHERNET, &frames), frames }
}

/// The modified format: its records are eight bytes longer and tell the packet's type.
fn kuznetzov() -> Capture {
    let ways = [PacketType::Outgoing, PacketType::Host, PacketType::Outgoing, PacketType::OtherHost];
    let record = |((packet, way), index): ((&Packet, PacketType), u64)| {
        (way, Frame::around(START_NS + index * MILLI, packet, ethernet))
    };
    let records: Vec<(PacketType, Frame)> = sample().iter().zip(ways).zip(0..).map(record).collect();
    let contents = pcap::write_modified(link_type::ETHERNET, &records);
    Capture { name: "kuznetzov.pcap", contents, frames: records.into_iter().map(|(_, frame)| frame).collect() }
}

/// Two sections of either byte order; every kind of packet block; each frame has a source port of its own, 4001 and up.
fn sections() -> Capture {
    let datagram = |port| {
        let [client, server] = ends(crate::cast::HOST, port, crate::cast::WEB, 9_000);
        udp(client, server, &[0x2b; 50])
    };
    let on_ethernet = |time_ns, port| Frame::around(time_ns, &datagram(port), ethernet);
    let on_raw = |time_ns, port| Frame::around(time_ns, &datagram(port), raw);
    let unstamped = |port| on_ethernet(0, port);
    let mut frames = vec![
        on_ethernet(START_NS + MICRO, 4_001),
        on_ethernet(START_NS + 2 * MICRO, 4_002),
        on_raw(START_NS + 987_654_321, 4_003),
        // Units of 1/1024 s of which even numbers are whole numbers of nanoseconds.
        on_ethernet(START_NS + SECOND * 4 / 1_024, 4_004),
        on_ethernet(START_NS + SECOND / 2, 4_005),
        unstamped(4_006),
    ];
    let mut first = Section::new(Endian::Little);
    first
        .interface(Interface {
            name: Some("eth0"),
            link_type: link_type::ETHERNET,
            snap_bytes: pcap::SNAP_BYTES,
            resolution: Resolution::Default,
            offset_secs: 0,
        })
        .interface(Interface {
            name: Some("tun0"),
            link_type: link_type::RAW,
            snap_bytes: 0,
            resolution: Resolution::Decimal(9),
            offset_secs: 0,
        })
        .interface(Interface {
            name: Some("eth1"),
            link_type: link_type::ETHERNET,
            snap_bytes: 0,
            resolution: Resolution::Binary(10),
            offset_secs: 1_000_000_000,
        })
        .enhanced(0, &frames[0], Some(Way::Inbound))
        .enhanced(0, &frames[1], Some(Way::Outbound))
        .unknown(b"a block that nobody knows")
        .enhanced(1, &frames[2], Some(Way::Unknown))
        .enhanced(2, &frames[3], None)
        .enhanced(2, &frames[4], Some(Way::Outbound))
        .simple(&frames[5])
        .statistics(0, START_NS + SECOND, 3);

    // The same numbers mean other interfaces here. One interface has no name; its frames were cut at 48 bytes.
    let cut = |mut frame: Frame| {
        frame.bytes.truncate(48);
        frame
    };
    let second_frames = [
        on_raw(START_NS + 2 * SECOND, 4_011),
        on_raw(START_NS + 3 * SECOND, 4_012),
        cut(Frame::around(0, &datagram(4_013), raw)),
    ];
    let mut second = Section::new(Endian::Big);
    second
        .interface(Interface {
            name: None,
            link_type: link_type::IPV4,
            snap_bytes: 48,
            resolution: Resolution::Default,
            offset_secs: 0,
        })
        .interface(Interface {
            name: Some("tun1"),
            link_type: link_type::RAW,
            snap_bytes: 0,
            resolution: Resolution::Decimal(3),
            offset_secs: 0,
        })
        .enhanced(1, &second_frames[0], Some(Way::Inbound))
        .obsolete(1, &second_frames[1], 7)
        .simple(&second_frames[2]);
    frames.extend(second_frames);
    Capture { name: "sections.pcapng", contents: [first.end(), second.end()].concat(), frames }
}
