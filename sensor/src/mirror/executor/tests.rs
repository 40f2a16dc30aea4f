//! Sessions at work, with an outlet that keeps what it is given.

mod drops;

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::capture::LinkType;
use crate::mirror::counters::{Skip, Volume};
use crate::mirror::encapsulate::Envelope;
use crate::mirror::{Criteria, Filter, Mode, Rule, RuleAction, Session, Target, TooBig};

/// Keeps copies; refuses those that it is told to.
#[derive(Clone, Default)]
struct Kept {
    copies: Arc<Mutex<Vec<Copy>>>,
    refusal: Option<Skip>,
    room_bytes: Option<usize>,
    /// Targets without a way.
    unreachable: Arc<Mutex<Vec<u16>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy {
    target: u16,
    src_port: u16,
    dst_port: u16,
    tunnel: [u8; 8],
    inner: Vec<u8>,
}

impl Outlet for Kept {
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip> {
        let Envelope { src_port, dst_port, tunnel } = copy.envelope;
        let copy = Copy { target: copy.target, src_port, dst_port, tunnel, inner: copy.inner.to_vec() };
        self.copies.lock().unwrap().push(copy);
        self.refusal.map_or(Ok(Taken::Sent { fragmented: false }), Err)
    }

    fn room_bytes(&self, target: u16) -> Option<usize> {
        let is_reachable = !self.unreachable.lock().unwrap().contains(&target);
        is_reachable.then(|| self.room_bytes.unwrap_or(usize::MAX))
    }
}

fn rule(number: &str, action: RuleAction, criteria: Criteria) -> (crate::mirror::RuleNumber, Rule) {
    let number = number.parse().unwrap();
    (number, Rule::new(number, action, criteria, None).unwrap())
}

fn target(address: &str) -> Target {
    Target {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        port: std::num::NonZeroU16::new(4789).unwrap(),
        encapsulation: Default::default(),
        weight: Default::default(),
        health_check: None,
    }
}

/// One session, number 1, VNI 66, that accepts everything but UDP to port 53, to these targets.
fn mirror(targets: &[&str], change: impl FnOnce(&mut Session)) -> Mirror {
    let dns = Criteria {
        protocol: "udp".parse().unwrap(),
        destination_ports: Some("53".parse().unwrap()),
        ..Criteria::default()
    };
    let rules: BTreeMap<_, _> =
        [rule("1", RuleAction::Reject, dns), rule("2", RuleAction::Accept, Criteria::default())].into();
    let filter = Arc::new(Filter::new("f".to_owned(), rules.clone(), rules));
    let mut session = Session {
        number: "1".parse().unwrap(),
        interface: "*".parse().unwrap(),
        filter: Arc::clone(&filter),
        targets: (0..targets.len() as u16).collect(),
        mode: Mode::Balance,
        vni: Vni::new(66),
        packet_length: None,
        too_big: TooBig::Fragment,
        offload: Default::default(),
        rate: Default::default(),
        description: None,
    };
    change(&mut session);
    Mirror::new(targets.iter().map(|address| target(address)).collect(), vec![filter], vec![session], false)
}

struct Bench {
    executor: Executor<Kept>,
    kept: Kept,
    health: Health,
}

fn bench(mirror: &Mirror, rates: Rates, refusal: Option<Skip>) -> Bench {
    bench_of(mirror, rates, Kept { refusal, ..Kept::default() })
}

fn bench_of(mirror: &Mirror, rates: Rates, kept: Kept) -> Bench {
    let health = Health::new(mirror.targets().len());
    let tapped = Tapped {
        decider: Decider::new(mirror, "eth0").unwrap(),
        classifier: Classifier::default(),
        local: LocalNetworks::new(&["10.0.0.0/8".parse().unwrap()]),
        mtu: 1500,
    };
    let describe = Box::new(move |interface| (interface == 0).then(|| tapped.clone()));
    let vnis = mirror.vnis("host");
    let executor = Executor::new(mirror, &vnis, rates, health.clone(), describe, kept.clone());
    Bench { executor, kept, health }
}

impl Bench {
    fn see(&mut self, captured: &[u8], original_bytes: usize, interface: u16) {
        let frame = Frame {
            time: Timestamp(0),
            offset: 0,
            captured_bytes: captured.len() as u32,
            original_bytes: original_bytes as u32,
            interface,
            link_type: LinkType::Ethernet,
            direction: Direction::Unknown,
        };
        self.executor.observe(&frame, captured, Hints::Unknown);
        assert!(self.executor.counts().iter().all(SessionCounts::balances));
    }

    fn sees(&mut self, frame: &[u8]) -> Vec<Copy> {
        self.see(frame, frame.len(), 0);
        std::mem::take(&mut *self.kept.copies.lock().unwrap())
    }

    /// From now on these targets have no way, and all others have one.
    fn lose(&self, targets: &[u16]) {
        *self.kept.unreachable.lock().unwrap() = targets.to_vec();
    }

    fn total(&self) -> crate::mirror::counters::Counts {
        self.executor.counts()[0].total()
    }

    fn skipped(&self, reason: Skip) -> u64 {
        self.total().skipped().find(|(skip, _)| *skip == reason).map_or(0, |(_, volume)| volume.packets)
    }
}

/// An Ethernet frame with an IPv4 packet; `fragment` is its field of flags and offset.
fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [length_0, length_1] = (20 + payload.len() as u16).to_be_bytes();
    let [fragment_0, fragment_1] = fragment.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, length_0, length_1, 0x12, 0x34, fragment_0, fragment_1, 64, protocol, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend(payload);
    frame
}

const LOCAL: [u8; 4] = [10, 0, 0, 1];
const REMOTE: [u8; 4] = [192, 0, 2, 7];

fn udp(src_port: u16, dst_port: u16, payload: usize) -> Vec<u8> {
    let length = (8 + payload as u16).to_be_bytes();
    let mut datagram = [src_port.to_be_bytes(), dst_port.to_be_bytes(), length, [0, 0]].concat();
    datagram.resize(8 + payload, 0x5a);
    datagram
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut segment = vec![4, 1, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 1, 0, 0];
    segment.resize(20 + payload, 0);
    segment
}

#[test]
fn what_a_session_accepts_is_sent_as_it_is() {
    let mut bench = bench(&mirror(&["10.83.0.2"], |_| {}), Rates::Ignored, None);
    let there = ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 443, 100));
    let back = ipv4(REMOTE, LOCAL, 17, 0, &udp(443, 1000, 100));
    let (copy, answer) = (bench.sees(&there).remove(0), bench.sees(&back).remove(0));
    assert_eq!((copy.inner, answer.inner), (there.clone(), back));
    assert_eq!(copy.src_port, answer.src_port);
    assert_eq!((copy.dst_port, copy.tunnel), (4789, [8, 0, 0, 0, 0, 0, 66, 0]));
    assert_eq!(bench.sees(&ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 53, 100))), [], "rejected");
    bench.see(&there, there.len(), 1);
    assert_eq!(bench.kept.copies.lock().unwrap().len(), 0, "another interface");
    let counts = bench.executor.counts()[0];
    let one = Volume { packets: 1, bytes: there.len() as u64 };
    assert_eq!((counts.ingress.mirrored, counts.egress.mirrored), (one, one));
}

#[test]
fn what_no_session_is_asked_about_is_counted() {
    let mut bench = bench(&mirror(&["10.83.0.2"], |_| {}), Rates::Ignored, None);
    bench.sees(&[0; 60]);
    bench.sees(&ipv4(REMOTE, REMOTE, 17, 0, &udp(1, 2, 3)));
    bench.sees(&ipv4(LOCAL, [192, 0, 2, 9], 17, 0, &udp(50_000, 4789, 30)));
    bench.sees(&ipv4(REMOTE, [10, 83, 0, 2], 17, 0, &udp(50_000, 4789, 30)));
    assert_eq!(bench.executor.unasked(), Unasked { not_ip: 1, undirected: 1, own: 1 });
    assert_eq!(bench.total().matched.packets, 1, "the overlay network's");
}

#[test]
fn a_super_packet_counts_as_the_frames_it_is() {
    let mut bench = bench(&mirror(&["10.83.0.2"], |_| {}), Rates::Ignored, None);
    let copies = bench.sees(&ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(4000)));
    assert_eq!(copies.iter().map(|copy| copy.inner.len()).collect::<Vec<_>>(), [1514, 1514, 1134]);
    assert_eq!(bench.total().mirrored, Volume { packets: 3, bytes: 4000 + 3 * 54 });
}

/// M8 of the specification.
#[test]
fn packet_length_cuts_every_wire_frame() {
    let mirror = mirror(&["10.83.0.2"], |session| session.packet_length = Some("128".parse().unwrap()));
    let mut bench = bench(&mirror, Rates::Ignored, None);
    let frame = ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(4000));
    let copies = bench.sees(&frame);
    assert_eq!(copies.iter().map(|copy| copy.inner.len()).collect::<Vec<_>>(), [128; 3]);
    assert_eq!(copies[1].inner[54..], frame[54..128], "inner bytes are unchanged");
    assert_eq!(bench.total().mirrored, Volume { packets: 3, bytes: 4162 });
    assert_eq!(bench.total().cut, Volume { packets: 3, bytes: 4162 - 3 * 128 });
    // Of a frame that was captured short there is enough; of a shorter one there is not.
    let long = ipv4(LOCAL, REMOTE, 17, 0, &udp(1, 2, 1000));
    bench.see(&long[..200], long.len(), 0);
    assert_eq!(bench.kept.copies.lock().unwrap().pop().unwrap().inner, long[..128]);
    bench.see(&long[..100], long.len(), 0);
    assert_eq!(bench.skipped(Skip::Partial), 1);
    assert_eq!(bench.total().matched.bytes, 4162 + 2 * long.len() as u64);
}

#[test]
fn fragments_follow_their_first() {
    let mut bench = bench(&mirror(&["10.83.0.2"], |_| {}), Rates::Ignored, None);
    let first = ipv4(LOCAL, REMOTE, 17, 0x2000, &udp(1000, 53, 16));
    let later = ipv4(LOCAL, REMOTE, 17, 3, &[7; 40]);
    assert_eq!(bench.sees(&first).len(), 0, "rejected by its port");
    assert_eq!(bench.sees(&later).len(), 0, "and so are the others");
    let other = ipv4(LOCAL, [192, 0, 2, 8], 17, 3, &[7; 40]);
    assert_eq!(bench.sees(&other).len(), 1, "without its first, as it is");
    let port = |copies: Vec<Copy>| copies[0].src_port;
    let accepted = ipv4(LOCAL, [192, 0, 2, 8], 17, 0x2000, &udp(1000, 443, 16));
    assert_eq!(port(bench.sees(&accepted)), port(bench.sees(&other)), "one port for all fragments");
}

#[test]
fn a_rate_is_held_and_what_is_beyond_is_counted() {
    let mirror = mirror(&["10.83.0.2"], |session| session.rate.packets = "10".parse().unwrap());
    let frame = ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 443, 100));
    let mut held = bench(&mirror, Rates::Hold(Timestamp(0)), None);
    (0..200).for_each(|_| assert!(held.sees(&frame).len() <= 1));
    // The smallest bucket holds 123 frames.
    assert_eq!((held.total().mirrored.packets, held.skipped(Skip::RateLimit)), (123, 77));
    let mut ignored = bench(&mirror, Rates::Ignored, None);
    (0..200).for_each(|_| assert_eq!(ignored.sees(&frame).len(), 1));
}

/// The buckets of these rates hold 577424 bits and 123 frames at least: more than the copies of one super-packet to one
/// target, and fewer than to all.
#[test]
fn a_session_that_replicates_mirrors_super_packets_of_any_size() {
    let rates = [("unlimited", "5Mbit", 40_000, 2), ("1000", "unlimited", 64_000, 3)];
    for (packets, bits, bytes, targets) in rates {
        let addresses = &["10.83.0.2", "10.83.0.3", "10.83.0.4"][..targets];
        let mirror = mirror(addresses, |session| {
            session.mode = Mode::Replicate;
            (session.rate.packets, session.rate.bits) = (packets.parse().unwrap(), bits.parse().unwrap());
        });
        let mut bench = bench(&mirror, Rates::Hold(Timestamp(0)), None);
        let frames = usize::div_ceil(bytes, 1460);
        let super_packet = ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(bytes));
        assert_eq!(bench.sees(&super_packet).len(), frames * targets, "{packets} {bits}");
        // The last copy was more than there was: that is owed now.
        assert_eq!(bench.sees(&ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 443, 100))), []);
        assert_eq!(bench.skipped(Skip::RateLimit), targets as u64);
    }
}

/// As in the kernel: no target, then too big, then no way, then the rate; and only what passes all pays.
#[test]
fn what_can_not_go_anyhow_takes_nothing_of_the_rate() {
    let mirror = mirror(&["10.83.0.2", "10.83.0.3", "10.83.0.4"], |session| {
        session.mode = Mode::Replicate;
        session.too_big = TooBig::Skip;
        session.rate.packets = "10".parse().unwrap();
    });
    let kept = Kept { room_bytes: Some(1000), ..Kept::default() };
    let mut bench = bench_of(&mirror, Rates::Hold(Timestamp(0)), kept);
    bench.health.set(1, false);
    bench.lose(&[2]);
    let (small, large) = (udp(1000, 443, 100), udp(1000, 443, 1000));
    (0..200).for_each(|_| assert_eq!(bench.sees(&ipv4(LOCAL, REMOTE, 17, 0, &large)), []));
    // A super-packet goes whole or not at all; its last frame has 54 + 40 bytes.
    assert_eq!(bench.sees(&ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(2 * 1460 + 40))), []);
    let skipped = [Skip::TooBig, Skip::NoTarget, Skip::Unreachable].map(|reason| bench.skipped(reason));
    assert_eq!(skipped, [203; 3]);
    let sent: usize = (0..124).map(|_| bench.sees(&ipv4(LOCAL, REMOTE, 17, 0, &small)).len()).sum();
    assert_eq!((sent, bench.skipped(Skip::RateLimit)), (123, 1), "the bucket was full");
    (0..9).for_each(|_| assert_eq!(bench.sees(&ipv4(LOCAL, REMOTE, 17, 0, &large)), []));
    assert_eq!((bench.skipped(Skip::TooBig), bench.skipped(Skip::RateLimit)), (212, 1), "it is empty now");
    assert_eq!(bench.skipped(Skip::Unreachable), 203 + 124 + 9);
}

/// No IP packet holds more than 65535 bytes, and the outer headers take 36 of them.
#[test]
fn what_no_packet_can_hold_takes_nothing_of_the_rate() {
    let mirror = mirror(&["10.83.0.2"], |session| session.rate.packets = "10".parse().unwrap());
    let mut bench = bench(&mirror, Rates::Hold(Timestamp(0)), None);
    let of_bytes = |bytes: usize| ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 443, bytes - 14 - 20 - 8));
    (0..200).for_each(|_| assert_eq!(bench.sees(&of_bytes(65_500)), []));
    assert_eq!(bench.sees(&of_bytes(65_499)).len(), 1);
    assert_eq!((bench.skipped(Skip::TooBig), bench.skipped(Skip::RateLimit)), (200, 0));
}

#[test]
fn dead_targets_lose_their_flows_and_only_those() {
    let mut bench = bench(&mirror(&["10.83.0.2", "10.83.0.3", "10.83.0.4"], |_| {}), Rates::Ignored, None);
    let frames: Vec<_> = (0..300).map(|port| ipv4(LOCAL, REMOTE, 17, 0, &udp(port, 443, 10))).collect();
    let targets = |bench: &mut Bench| frames.iter().map(|frame| bench.sees(frame)[0].target).collect::<Vec<_>>();
    let before = targets(&mut bench);
    assert!((0..3).all(|target| before.iter().filter(|chosen| **chosen == target).count() > 60));
    bench.health.set(1, false);
    let after = targets(&mut bench);
    assert!(before.iter().zip(&after).all(|(before, after)| *after != 1 && (before == after || *before == 1)));
    bench.health.set(1, true);
    assert_eq!(targets(&mut bench), before);
    (0..3).for_each(|target| bench.health.set(target, false));
    assert_eq!(bench.sees(&frames[0]), []);
    assert_eq!(bench.skipped(Skip::NoTarget), 1);
}

/// As in the kernel.
#[test]
fn targets_without_a_way_lose_their_flows_while_another_has_one() {
    let mut bench = bench(&mirror(&["10.83.0.2", "10.83.0.3", "10.83.0.4"], |_| {}), Rates::Ignored, None);
    let frames: Vec<_> = (0..300).map(|port| ipv4(LOCAL, REMOTE, 17, 0, &udp(port, 443, 10))).collect();
    let targets = |bench: &mut Bench| frames.iter().map(|frame| bench.sees(frame)[0].target).collect::<Vec<_>>();
    let before = targets(&mut bench);
    bench.lose(&[1]);
    let after = targets(&mut bench);
    assert!(before.iter().zip(&after).all(|(before, after)| *after != 1 && (before == after || *before == 1)));
    // One that has a way and is dead takes no flow, and no other gets them.
    bench.lose(&[0, 1]);
    bench.health.set(2, false);
    assert_eq!((bench.sees(&frames[0]), bench.skipped(Skip::NoTarget)), (vec![], 1));
    // Where none has one, a flow stays with its target.
    bench.lose(&[0, 1, 2]);
    bench.health.set(2, true);
    assert_eq!((bench.sees(&frames[0]), bench.skipped(Skip::Unreachable)), (vec![], 1));
    bench.lose(&[]);
    assert_eq!(targets(&mut bench), before);
}

/// As in the kernel.
#[test]
fn a_replicating_session_loses_the_copies_alone_of_a_target_without_a_way() {
    let mirror = mirror(&["10.83.0.2", "10.83.0.3"], |session| session.mode = Mode::Replicate);
    let mut bench = bench(&mirror, Rates::Ignored, None);
    bench.lose(&[0]);
    let copies = bench.sees(&ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(4000)));
    assert_eq!(copies.iter().map(|copy| copy.target).collect::<Vec<_>>(), [1; 3]);
    assert_eq!((bench.total().matched.packets, bench.skipped(Skip::Unreachable)), (6, 3));
}

#[test]
fn a_replicating_session_counts_a_copy_for_each_target() {
    let mirror = mirror(&["10.83.0.2", "10.83.0.3"], |session| session.mode = Mode::Replicate);
    let mut bench = bench(&mirror, Rates::Ignored, None);
    let frame = ipv4(LOCAL, REMOTE, 17, 0, &udp(1000, 443, 100));
    assert_eq!(bench.sees(&frame).iter().map(|copy| copy.target).collect::<Vec<_>>(), [0, 1]);
    bench.health.set(0, false);
    assert_eq!(bench.sees(&frame).len(), 1);
    let total = bench.total();
    assert_eq!((total.matched.packets, total.mirrored.packets, bench.skipped(Skip::NoTarget)), (4, 3, 1));
}

#[test]
fn what_the_outlet_refuses_is_counted_by_reason() {
    for reason in [Skip::QueueFull, Skip::TooBig, Skip::Refused] {
        let mut bench = bench(&mirror(&["10.83.0.2"], |_| {}), Rates::Ignored, Some(reason));
        bench.sees(&ipv4(LOCAL, REMOTE, 6, 0x4000, &tcp(4000)));
        assert_eq!((bench.skipped(reason), bench.total().mirrored.packets), (3, 0));
    }
}
