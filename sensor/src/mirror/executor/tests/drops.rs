//! Packets where the kernel drops them.

use super::*;
use crate::mirror::Verdict;

/// Two sessions to one target: number 1 takes TCP at the interface, and everything that is dropped but UDP to port 53;
/// number 2 takes what is dropped.
fn mirror_of_drops(change: impl FnOnce(&mut Session)) -> Mirror {
    let rejected = || Criteria { verdict: Some(Verdict::Rejected), ..Criteria::default() };
    let of = |protocol: &str| Criteria { protocol: protocol.parse().unwrap(), ..Criteria::default() };
    let dns = Criteria { destination_ports: Some("53".parse().unwrap()), ..of("udp") };
    let rules: BTreeMap<_, _> = [
        rule("1", RuleAction::Reject, dns),
        rule("2", RuleAction::Accept, of("tcp")),
        rule("3", RuleAction::Accept, rejected()),
    ]
    .into();
    let first = Arc::new(Filter::new("first".to_owned(), rules.clone(), rules));
    let rules: BTreeMap<_, _> = [rule("1", RuleAction::Accept, rejected())].into();
    let second = Arc::new(Filter::new("second".to_owned(), rules.clone(), rules));
    let mirror = mirror(&["10.83.0.2"], |session| {
        session.filter = Arc::clone(&first);
        change(session);
    });
    let one = mirror.sessions()[0].clone();
    let two = Session {
        number: "2".parse().unwrap(),
        filter: Arc::clone(&second),
        vni: Vni::new(67),
        packet_length: None,
        ..one.clone()
    };
    Mirror::new(mirror.targets().to_vec(), vec![first, second], vec![one, two], false)
}

/// Whole and complete, of a device with Ethernet headers.
const PLAIN: Hints = Hints::Kernel { checksum: None, segment_bytes: None };

impl Bench {
    fn drop_as(&mut self, link_type: LinkType, bytes: &[u8], original_bytes: usize, hints: Hints, was_tapped: bool) {
        let frame = Frame {
            time: Timestamp(0),
            offset: 0,
            captured_bytes: bytes.len() as u32,
            original_bytes: original_bytes as u32,
            interface: 0,
            link_type,
            direction: Direction::Ingress,
        };
        self.executor.observe_drop(&frame, bytes, hints, was_tapped);
        assert!(self.executor.counts().iter().all(SessionCounts::balances));
    }

    fn drops(&mut self, frame: &[u8], was_tapped: bool) -> Vec<Copy> {
        self.drop_as(LinkType::Ethernet, frame, frame.len(), PLAIN, was_tapped);
        self.taken()
    }

    fn taken(&mut self) -> Vec<Copy> {
        std::mem::take(&mut *self.kept.copies.lock().unwrap())
    }
}

fn vnis(copies: &[Copy]) -> Vec<u8> {
    copies.iter().map(|copy| copy.tunnel[6]).collect()
}

#[test]
fn what_a_session_took_at_the_tap_is_not_sent_again() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    let segment = ipv4(REMOTE, LOCAL, 6, 0, &tcp(100));
    assert_eq!(vnis(&bench.sees(&segment)), [66]);
    assert_eq!(bench.drops(&segment, true), []);
    assert_eq!(bench.skipped(Skip::AlreadyTaken), 1);
    // One that never reached the tap was not taken there.
    assert_eq!(bench.drops(&segment, false)[0].inner, segment);
    let datagram = ipv4(REMOTE, LOCAL, 17, 0, &udp(1000, 443, 100));
    assert_eq!(bench.sees(&datagram), [], "the tap's rules don't take it");
    assert_eq!(vnis(&bench.drops(&datagram, true)), [66]);
    // What the first session rejects everywhere is the next one's.
    assert_eq!(vnis(&bench.drops(&ipv4(REMOTE, LOCAL, 17, 0, &udp(1000, 53, 100)), true)), [67]);
    let total = bench.total();
    assert_eq!((total.matched.packets, total.mirrored.packets), (4, 3));
    assert_eq!(total.matched.bytes, 3 * segment.len() as u64 + datagram.len() as u64);
    assert_eq!(total.partial, Volume::default());
}

#[test]
fn fragments_follow_their_first_at_both_points() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    let pieces = |protocol, payload: &[u8]| {
        [ipv4(REMOTE, LOCAL, protocol, 0x2000, payload), ipv4(REMOTE, LOCAL, protocol, 13, &[7; 40])]
    };
    for piece in pieces(6, &tcp(84)) {
        assert_eq!(bench.drops(&piece, true), [], "taken at the tap");
    }
    for piece in pieces(17, &udp(1000, 53, 96)) {
        assert_eq!(vnis(&bench.drops(&piece, true)), [67], "rejected by its port");
    }
    for piece in pieces(17, &udp(1000, 443, 96)) {
        assert_eq!(vnis(&bench.drops(&piece, true)), [66]);
    }
}

#[test]
fn a_copy_may_end_early_and_is_never_made_longer() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    let frame = ipv4(REMOTE, LOCAL, 17, 0, &udp(1000, 443, 1000));
    bench.drop_as(LinkType::Ethernet, &frame[..60], frame.len(), PLAIN, true);
    assert_eq!(bench.taken()[0].inner, frame[..60]);
    let missing = frame.len() as u64 - 60;
    let whole = Volume { packets: 1, bytes: frame.len() as u64 };
    assert_eq!((bench.total().matched, bench.total().mirrored), (whole, whole));
    assert_eq!(bench.total().partial, Volume { packets: 1, bytes: missing });
    assert_eq!((bench.total().cut, bench.skipped(Skip::Partial)), (Volume::default(), 0));

    // A checksum that was left to the card can't be completed over what is not there, and stays as it is.
    let open = Hints::Kernel {
        checksum: Some(crate::mirror::inner::PartialChecksum { start: 34, at: 40 }),
        segment_bytes: None,
    };
    bench.drop_as(LinkType::Ethernet, &frame[..60], frame.len(), open, true);
    assert_eq!(bench.taken()[0].inner, frame[..60]);
    bench.drop_as(LinkType::Ethernet, &frame, frame.len(), open, true);
    let completed = bench.taken().remove(0).inner;
    assert_eq!((&completed[..40], &completed[42..]), (&frame[..40], &frame[42..]));
    assert_ne!(completed[40..42], frame[40..42]);
}

#[test]
fn without_a_header_of_the_wire_one_is_made() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    let frame = ipv4(REMOTE, LOCAL, 17, 0, &udp(1000, 443, 300));
    let packet = &frame[14..];
    for length in [packet.len(), 100] {
        bench.drop_as(LinkType::Raw, &packet[..length], packet.len(), PLAIN, false);
        let inner = bench.taken().remove(0).inner;
        assert_eq!(inner[..12], crate::mirror::inner::MADE_ADDRESSES);
        assert_eq!((&inner[12..14], &inner[14..]), (&[8, 0][..], &packet[..length]));
    }
    let total = bench.total();
    assert_eq!(total.mirrored, Volume { packets: 2, bytes: 2 * frame.len() as u64 });
    assert_eq!(total.partial, Volume { packets: 1, bytes: packet.len() as u64 - 100 });
}

#[test]
fn a_super_packet_is_cut_if_it_is_there_and_else_goes_as_one() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    let frame = ipv4(REMOTE, LOCAL, 6, 0x4000, &tcp(4000));
    let segments = Hints::Kernel { checksum: None, segment_bytes: Some(1460) };
    bench.drop_as(LinkType::Ethernet, &frame, frame.len(), segments, false);
    assert_eq!(bench.taken().iter().map(|copy| copy.inner.len()).collect::<Vec<_>>(), [1514, 1514, 1134]);
    bench.drop_as(LinkType::Ethernet, &frame[..54], frame.len(), segments, false);
    assert_eq!(bench.taken()[0].inner, frame[..54], "with the lengths that stand in it");
    let total = bench.total();
    assert_eq!(total.mirrored, Volume { packets: 3 + 1, bytes: 4000 + 3 * 54 + frame.len() as u64 });
    assert_eq!(total.partial, Volume { packets: 1, bytes: 4000 });
}

/// What nobody would have sent anyhow is not missing.
#[test]
fn a_packet_length_within_what_could_be_read_is_a_cut() {
    let mirror = mirror_of_drops(|session| session.packet_length = Some("64".parse().unwrap()));
    let mut bench = bench(&mirror, Rates::Ignored, None);
    let frame = ipv4(REMOTE, LOCAL, 17, 0, &udp(1000, 443, 1000));
    for readable in [100, 60] {
        bench.drop_as(LinkType::Ethernet, &frame[..readable], frame.len(), PLAIN, false);
        assert_eq!(bench.taken()[0].inner, frame[..readable.min(64)]);
    }
    let total = bench.total();
    assert_eq!(total.cut, Volume { packets: 1, bytes: frame.len() as u64 - 64 });
    assert_eq!(total.partial, Volume { packets: 1, bytes: frame.len() as u64 - 60 });
}

#[test]
fn our_own_copies_are_left_alone_also_where_they_are_dropped() {
    let mut bench = bench(&mirror_of_drops(|_| {}), Rates::Ignored, None);
    assert_eq!(bench.drops(&ipv4(LOCAL, [10, 83, 0, 2], 17, 0, &udp(50_000, 4789, 60)), false), []);
    assert_eq!(bench.executor.unasked(), Unasked { own: 1, ..Unasked::default() });
    assert_eq!(bench.drops(&[0; 60], false), []);
    assert_eq!(bench.executor.unasked().not_ip, 1);
}
