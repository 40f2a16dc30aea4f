//! Both executors, the kernel's and the packet plane's, asked the same: one target, one port, one header, the same bytes.

use super::{
    KernelMirror, Plan, filter,
    frames::{self, Outer, Packet, TCP, UDP},
    frames_of, mirrored,
    net::*,
    outcome, plan, protocol, session, target,
};
use crate::{
    capture::{Direction, Frame, LinkType, kernel::Device},
    classify::{Classifier, LocalNetworks},
    mirror::{
        Criteria, Decider, Executor, Mirror, Outlet, RuleAction,
        counters::Skip,
        executor::{Copied, Health, Rates, Taken, Tapped},
        inner::Hints,
        kernel::CopyOutcome,
        live::{LiveMirror, Setup, Sight},
    },
    time::Timestamp,
};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
};

/// All of a copy that both executors make: target, outer source port, VXLAN header, inner frame.
type Made = (IpAddr, u16, [u8; 8], Vec<u8>);

/// What a collector received by `col0`.
fn received(captured: &[Vec<u8>]) -> Vec<Made> {
    let copies = captured.iter().filter_map(|frame| Outer::read(frame));
    copies.map(|copy| (copy.dst, copy.src_port, copy.tunnel, copy.inner.to_vec())).collect()
}

/// Keeps what the packet plane's executor would send.
struct Kept {
    targets: Vec<IpAddr>,
    made: Arc<Mutex<Vec<Made>>>,
}

impl Outlet for Kept {
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip> {
        let target = self.targets[usize::from(copy.target)];
        let made = (target, copy.envelope.src_port, copy.envelope.tunnel, copy.inner.to_vec());
        self.made.lock().unwrap().push(made);
        Ok(Taken::Sent { fragmented: false })
    }
}

/// The packet plane's executor of that plan.
struct Model {
    executor: Executor<Kept>,
    health: Health,
    made: Arc<Mutex<Vec<Made>>>,
}

impl Model {
    fn new(plan: &Plan) -> Self {
        let (made, health) = (Arc::default(), Health::new(plan.mirror.targets().len()));
        let kept = Kept {
            targets: plan.mirror.targets().iter().map(|target| target.address).collect(),
            made: Arc::clone(&made),
        };
        let tapped = tapped(&plan.mirror, TAP, 1500);
        let describe = Box::new(move |_| tapped.clone());
        let executor = Executor::new(&plan.mirror, &plan.vnis, Rates::Ignored, health.clone(), describe, kept);
        Self { executor, health, made }
    }

    /// What comes of whole frames that come in.
    fn make(&mut self, frames: &[Vec<u8>]) -> Vec<Made> {
        for captured in frames {
            let bytes = captured.len() as u32;
            let frame = Frame {
                time: Timestamp(0),
                offset: 0,
                captured_bytes: bytes,
                original_bytes: bytes,
                interface: 0,
                link_type: LinkType::Ethernet,
                direction: Direction::Ingress,
            };
            self.executor.observe(&frame, captured, Hints::Unknown);
        }
        std::mem::take(&mut *self.made.lock().unwrap())
    }
}

fn tapped(mirror: &Mirror, name: &str, mtu: usize) -> Option<Tapped> {
    let decider = Decider::new(mirror, name).unwrap();
    let of_name = !mirror.sessions_of(name).is_empty();
    of_name.then(|| Tapped { decider, classifier: Classifier::default(), local: LocalNetworks::new(&[]), mtu })
}

/// What the kernel makes of frames that come in.
fn kernel(net: &Net, frames: &[Vec<u8>]) -> Vec<Made> {
    let frames = frames.to_vec();
    let ((), captured) = net.collector.capture(COLLECTOR, || net.client.run(move || send(CLIENT, &frames)));
    let mut made = received(&captured);
    // What the client says of its own accord is not asked about.
    made.retain(|(.., inner)| inner[6..12] == [2, 0, 0, 0, 0, 9]);
    made
}

const TARGETS: [&str; 5] = ["10.83.0.11", "10.83.0.12", "10.83.0.13", "10.83.0.14", "10.83.0.15"];

/// A session of so many targets with these weights, in the kernel and beside it.
fn of_targets(net: &Net, weights: &[&str]) -> Option<(KernelMirror, Model)> {
    let addresses = &TARGETS[..weights.len()];
    for address in addresses {
        net.collector.run(move || ip(&format!("addr add {address}/24 dev {COLLECTOR}")));
        ping(address);
    }
    let mut balanced = session(1, TAP, &filter(&[(RuleAction::Accept, Criteria::default())]));
    balanced.targets = (0..addresses.len() as u16).collect();
    let mut targets: Vec<_> = addresses.iter().map(|address| target(address, address)).collect();
    for (target, weight) in targets.iter_mut().zip(weights) {
        target.weight = weight.parse().unwrap();
    }
    let plan = plan(targets, vec![balanced]);
    let model = Model::new(&plan);
    Some((mirrored(plan, TAP)?, model))
}

/// Numbers without any pattern (xorshift), which share nothing with what is tested.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Both directions of a flow of TCP or UDP, over either version of IP, between anybody.
fn both_ways(next: &mut impl FnMut() -> u64) -> [Vec<u8>; 2] {
    let (src, dst, rest) = (next(), next(), next());
    let [src_port, dst_port] = [rest as u16, (rest >> 16) as u16];
    let address = |bits: u64| -> IpAddr {
        if rest >> 33 & 1 == 0 {
            // Unicast, and none of the networks that are here.
            Ipv4Addr::from(0x2000_0000 | bits as u32 & 0x5fff_ffff).into()
        } else {
            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(bits)).into()
        }
    };
    let (src, dst) = (address(src), address(dst));
    let one_way = |(src, src_port): (IpAddr, u16), (dst, dst_port): (IpAddr, u16)| {
        let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
        let (protocol, payload) = if rest >> 32 & 1 == 0 {
            (TCP, [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]].concat())
        } else {
            (UDP, [&ports[..], &[0, 10, 0, 0, 1, 2]].concat())
        };
        frames::ethernet(None, &frames::ip(src, dst, protocol, &payload))
    };
    [one_way((src, src_port), (dst, dst_port)), one_way((dst, dst_port), (src, src_port))]
}

/// M4 of the specification, by the kernel's executor on the wire, and frame by frame as the packet plane's has it.
#[test]
fn a_hundred_thousand_flows_meet_and_spread_as_in_the_packet_plane() {
    let Some(net) = Net::join() else { return };
    let Some((mut mirror, mut model)) = of_targets(&net, &["1"; 5]) else { return };
    let (mut by_target, mut by_sixteenth) = ([0_u32; 5], [0_u32; 16]);
    let place = |address: IpAddr| TARGETS.iter().position(|target| target.parse() == Ok(address)).unwrap();
    let mut next = numbers();
    for round in 0..10 {
        let frames: Vec<_> = (0..10_000).flat_map(|_| both_ways(&mut next)).collect();
        let made = kernel(&net, &frames);
        assert_eq!(made.len(), frames.len(), "{:?}", mirror.counters());
        assert!(made == model.make(&frames), "both executors make the same of round {round}");
        for flow in made.chunks(2) {
            assert_eq!((flow[0].0, flow[0].1), (flow[1].0, flow[1].1), "both directions meet");
            by_target[place(flow[0].0)] += 1;
            by_sixteenth[usize::from((flow[0].1 - 49_152) / 1024)] += 1;
        }
        if round == 0 {
            let dead = place(made[0].0) as u16;
            mirror.set_health(dead, false).unwrap();
            model.health.set(dead, false);
            let without = kernel(&net, &frames);
            assert!(without == model.make(&frames), "so they do without a target");
            for (before, after) in made.iter().zip(&without) {
                let moved = before.0 != after.0;
                assert_eq!(moved, place(before.0) == usize::from(dead), "only a removed target's flows move");
                assert_eq!(before.1, after.1, "and keep their port");
            }
            mirror.set_health(dead, true).unwrap();
            model.health.set(dead, true);
        }
    }
    // 20 000 and 6250, give or take a twentieth.
    assert!(by_target.iter().all(|count| (19_000..=21_000).contains(count)), "{by_target:?}");
    assert!(by_sixteenth.iter().all(|count| (5_938..=6_562).contains(count)), "{by_sixteenth:?}");
    assert_eq!(outcome(&mirror, CopyOutcome::NoTarget), 0);
}

#[test]
fn weights_and_messages_without_ports_are_judged_alike() {
    let Some(net) = Net::join() else { return };
    let Some((mirror, mut model)) = of_targets(&net, &["1", "7", "1000"]) else { return };
    let mut next = numbers();
    let mut sent: Vec<_> = (0..2000).flat_map(|_| both_ways(&mut next)).collect();
    let [near, far]: [IpAddr; 2] = ["198.51.100.1", "203.0.113.9"].map(|address| address.parse().unwrap());
    let [near6, far6]: [IpAddr; 2] = ["2001:db8::1", "2001:db8::9"].map(|address| address.parse().unwrap());
    for number in 0..=255 {
        // Every type of ICMP, and every protocol; those that are no header are told by their addresses.
        sent.push(frames::ethernet(None, &frames::ip(near, far, 1, &[number, 3, 0, 0, 0, 0, 0, 0])));
        sent.push(frames::ethernet(Some(12), &frames::ip(near6, far6, 58, &[number, 0, 0, 0, 0, 0, 0, 0])));
        let payload: Vec<u8> = (0..64).collect();
        if ![6, 17, 1].contains(&number) {
            sent.push(frames::ethernet(None, &frames::ip(near, far, number, &payload)));
        }
    }
    // A datagram in pieces.
    for place in [0x2000, 0x2001, 2] {
        sent.push(frames::ethernet(None, &frames::piece(near, far, 7, place, &[7, 0, 0, 53, 0, 24, 0, 0])));
    }
    let (made, expected) = (kernel(&net, &sent), model.make(&sent));
    assert_eq!(made.len(), expected.len(), "{:?}", mirror.counters());
    for (ours, theirs) in made.iter().zip(&expected) {
        assert!(ours == theirs, "{ours:?}\n{theirs:?}");
    }
    frames_of(&mirror);
}

/// What each guard holds back: [`flowtap_abi::guard`] has the cases one by one.
#[test]
fn copies_of_copies_are_held_back_alike() {
    let Some(net) = Net::join() else { return };
    let Some((mirror, mut model)) = of_targets(&net, &["1"]) else { return };
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let [target, us, other] = [TARGETS[0], "198.51.100.1", "203.0.113.9"].map(address);
    let [us6, other6] = ["2001:db8::1", "2001:db8::9"].map(address);
    let datagram = |src_port: u16, dst_port: u16, payload: &[u8]| {
        let length = (8 + payload.len() as u16).to_be_bytes();
        [&src_port.to_be_bytes(), &dst_port.to_be_bytes(), &length, &[0, 0][..], payload].concat()
    };
    let between = |src, dst, src_port, dst_port| frames::ip(src, dst, UDP, &datagram(src_port, dst_port, &[5; 20]));
    let tunnelled = |packet: &[u8], tag| {
        datagram(50_000, 4789, &[&[8, 0, 0, 0, 0, 0, 66, 0], &frames::ethernet(tag, packet)[..]].concat())
    };
    let error = |icmp_type, quoted: &[u8]| {
        frames::ip(target, us, 1, &[&[icmp_type, 3, 0, 0, 0, 0, 0, 0], &quoted[..28]].concat())
    };
    let error6 =
        |icmp_type, quoted: &[u8]| frames::ip(other6, us6, 58, &[&[icmp_type, 0, 0, 0, 0, 0, 0, 0], quoted].concat());
    let copy = between(us, target, 50_000, 4789);
    let once = frames::ip(us, other, UDP, &tunnelled(&between(us, other, 50_000, 53), None));
    let once6 = frames::ip(us6, other6, UDP, &tunnelled(&between(us, other, 50_000, 53), None));
    let twice = tunnelled(&once, None);
    let (begin, end) = twice.split_at(64);
    let piece6 = |offset_and_more: u8, payload: &[u8]| {
        frames::ip(us6, other6, 44, &[&[UDP, 0, 0, offset_and_more, 0, 0, 0, 9], payload].concat())
    };
    // Packets, and whether they are held back.
    let cases = [
        (copy.clone(), true),
        (between(target, us, 4789, 50_000), true),
        (between(target, us, 50_000, 4789), true),
        (between(us, target, 4789, 50_000), true),
        (between(us, target, 50_000, 53), false),
        (between(us, other, 50_000, 4789), false),
        (error(3, &copy), true),
        (error(3, &between(target, us, 50_000, 4789)), true),
        (error(11, &copy), true),
        (error(8, &copy), false),
        (error(3, &between(us, target, 50_000, 53)), false),
        (error(3, &frames::piece(us, target, 7, 0x2001, &datagram(50_000, 4789, &[]))), false),
        (error6(1, &between(us6, other6, 50_000, 4789)), false),
        (once.clone(), false),
        (once6.clone(), false),
        (frames::ip(us, other, UDP, &twice), true),
        (frames::ip(us6, other6, UDP, &tunnelled(&once6, Some(12))), true),
        (frames::ip(us6, other6, UDP, &tunnelled(&piece6(1, &datagram(50_000, 4789, &[5; 20])), None)), true),
        (frames::ip(us6, other6, UDP, &tunnelled(&piece6(9, &datagram(50_000, 4789, &[5; 20])), None)), false),
        // Pieces: one that comes before the first, those of a copy, and those of other traffic with its number.
        (frames::piece(us, target, 8, 0x2001, &[5; 64]), false),
        (frames::piece(us, target, 8, 0x2000, &datagram(50_000, 4789, &[5; 56])), true),
        (frames::piece(us, target, 8, 0x2008, &[5; 64]), true),
        (frames::piece(us, target, 8, 0x0010, &[5; 64]), true),
        (frames::piece(us, target, 8, 0x2000, &datagram(50_000, 53, &[5; 56])), false),
        (frames::piece(us, target, 8, 0x0008, &[5; 64]), false),
        (frames::piece(us, other, 9, 0x2000, begin), true),
        (frames::piece(us, other, 9, 0x0008, end), true),
        (piece6(1, begin), true),
        (piece6(64, end), true),
        (piece6(64, end), true),
    ];
    let tagged = |tag| cases.iter().map(move |(packet, is_held)| (frames::ethernet(tag, packet), *is_held));
    let (sent, are_held): (Vec<_>, Vec<_>) = tagged(None).chain(tagged(Some(7))).unzip();
    let (ours, theirs) = (kernel(&net, &sent), model.make(&sent));
    let held = |made: &[Made]| -> Vec<usize> {
        let mut made = made.iter().map(|(.., inner)| inner).peekable();
        (0..sent.len()).filter(|at| made.next_if(|inner| *inner == &sent[*at]).is_none()).collect()
    };
    let expected: Vec<_> = (0..sent.len()).filter(|at| are_held[*at]).collect();
    assert_eq!(held(&ours), expected, "{:?}", mirror.counters());
    assert_eq!(held(&theirs), expected);
    assert!(ours == theirs);
    assert_eq!(mirror.counters().unwrap().own_copies, expected.len() as u64);
    assert_eq!(model.executor.unasked().own, expected.len() as u64);
}

/// The thread that taps beside the kernel, at the same interface, with another target.
#[test]
fn what_passes_an_interface_is_copied_alike_super_packets_and_all() {
    let Some(net) = Net::join() else { return };
    let other = TARGETS[0];
    net.collector.run(move || ip(&format!("addr add {other}/24 dev {COLLECTOR}")));
    ping(other);
    let all = filter(&[protocol("tcp"), protocol("udp"), protocol("icmp")]);
    let to = |address| plan(vec![target("ids", address)], vec![session(1, TAP, &all)]);
    let Some(kernel) = mirrored(to(COLLECTOR_V4), TAP) else { return };
    let Plan { mirror, vnis, .. } = to(other);
    let sessions = mirror.clone();
    let setup = Setup {
        mirror,
        vnis,
        watch: vec![TAP.parse().unwrap()],
        describe: Arc::new(move |name, mtu| tapped(&sessions, name, mtu)),
    };
    let clock = || Timestamp(u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap());
    let thread = LiveMirror::start(setup, Sight { taps: true, drops: None }, None, Arc::new(clock)).unwrap();
    let tap = Device::find(TAP).unwrap().index.to_string();
    let is_tapped = || {
        let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        // Interfaces stand in the fifth column.
        sockets.lines().any(|line| line.split_whitespace().nth(4) == Some(&tap))
    };
    assert!(comes_true(is_tapped), "the thread taps soon");
    let ((), captured) = net.collector.capture(COLLECTOR, || {
        for near in [HOST_V4, HOST_V6] {
            talk(&net, near);
        }
        // The thread reads in its own time.
        comes_true(|| {
            let report = thread.report();
            let sent: u64 = report.sessions.iter().map(|one| one.counts.total().mirrored.packets).sum();
            sent + report.tap_drops * SUPER_DATAGRAM_FRAMES == frames_of(&kernel).1
        });
    });
    let report = thread.stop();
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) =
        received(&captured).into_iter().partition(|(target, ..)| *target == COLLECTOR_V4.parse::<IpAddr>().unwrap());
    assert!(theirs.iter().all(|(target, ..)| *target == other.parse::<IpAddr>().unwrap()));
    let (matched, ..) = frames_of(&kernel);
    assert_eq!(ours.len() as u64, matched, "{report}");
    if report.tap_drops > 0 {
        eprintln!(
            "skipped in part: this kernel hands taps no super-packets of datagrams (before Linux 6.2), and they say so"
        );
        assert_eq!(report.tap_drops, 2, "one of each family: {report}");
        ours.retain(|(.., inner)| !inner.ends_with(&[SUPER_DATAGRAM_BYTE; 777]));
    }
    assert_eq!(matched - ours.len() as u64, report.tap_drops * SUPER_DATAGRAM_FRAMES, "{report}");
    assert_eq!(theirs.len(), ours.len(), "{report}");
    assert!(matched > 2 * (2 * 600_000 / 1448), "{matched}");
    let of_tcp = |made: &[Made]| -> Vec<u16> {
        let of_each = made.iter().map(|(_, port, _, inner)| (Packet::read(inner).map(|packet| packet.protocol), *port));
        let mut ports: Vec<_> = of_each.filter(|(protocol, _)| *protocol == Some(TCP)).map(|(_, port)| port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    assert_eq!(of_tcp(&ours).len(), 2, "two connections, two ports");
    for made in [&mut ours, &mut theirs] {
        for (target, _, _, inner) in made.iter_mut() {
            *target = other.parse().unwrap();
            write_zero_one_way(inner);
        }
        made.sort();
    }
    let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
    assert!(differing.is_none(), "{differing:?}");
}

/// A checksum of TCP that is 0 may be written as 0xffff as well, and once in 65536 segments it is 0 (RFC 1624, section 3): the
/// kernel writes the one or the other, by who completes it.
fn write_zero_one_way(frame: &mut [u8]) {
    let transport = Packet::read(frame).filter(|packet| packet.protocol == TCP).map(|packet| packet.transport.len());
    if let Some(transport_bytes) = transport {
        let at = frame.len() - transport_bytes + 16;
        if frame[at..at + 2] == [0xff, 0xff] {
            frame[at..at + 2].fill(0);
        }
    }
}

/// TCP both ways, datagrams, some in pieces and some as one super-packet, and echoes.
fn talk(net: &Net, near: &'static str) {
    const BYTES: usize = 600_000;
    let near: IpAddr = near.parse().unwrap();
    let listener = TcpListener::bind((near, 0)).unwrap();
    let (address, far) = (listener.local_addr().unwrap(), if near.is_ipv4() { CLIENT_V4 } else { CLIENT_V6 });
    let far: IpAddr = far.parse().unwrap();
    let client = net.client.begin(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[7; BYTES]).unwrap();
        stream.read_exact(&mut [0; BYTES]).unwrap();
    });
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; BYTES]).unwrap();
    stream.write_all(&[9; BYTES]).unwrap();
    client.recv().unwrap();
    let socket = UdpSocket::bind((near, 0)).unwrap();
    for bytes in [0, 1, 100, 1400, 5000] {
        socket.send_to(&vec![bytes as u8; bytes], (far, 9)).unwrap();
    }
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
    socket.send_to(&[SUPER_DATAGRAM_BYTE; 7777], (far, 9)).unwrap();
    ping(&far.to_string());
}

/// What the super-packet of datagrams is full of, and the frames that it is.
const SUPER_DATAGRAM_BYTE: u8 = 3;
const SUPER_DATAGRAM_FRAMES: u64 = 8;
