//! What must not happen: copies of copies, packets let in, harm by a path too small, a device taken away.

use super::{
    super::{CopyOutcome, KernelMirror, KernelMirrorError, Notice, TunnelError},
    filter,
    frames::{Outer, udp},
    frames_of, mirror, mirrored,
    net::*,
    outcome, plan, protocol, session, target,
};
use crate::{capture::kernel::Device, mirror::TooBig};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, UNIX_EPOCH},
};

/// So many datagrams of the client, of that payload.
fn datagrams(net: &Net, count: usize, payload_bytes: usize) {
    let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", None, &vec![5; payload_bytes]);
    net.client.run(move || send(CLIENT, &vec![frame; count]));
}

#[test]
fn copies_are_not_copied_with_a_target_on_the_tapped_network_and_a_tap_on_the_way() {
    let Some(net) = Net::join() else { return };
    // The target is the client, and its port is closed: it answers every copy with an ICMP error, up to its limit.
    let all = filter(&[protocol("udp"), protocol("icmp")]);
    let sessions = vec![session(1, TAP, &all), session(2, OUT, &all)];
    let Some(mut mirror) = mirrored(plan(vec![target("ids", CLIENT_V4)], sessions), TAP) else { return };
    mirror.attach(&Device::find(OUT).unwrap()).unwrap();
    let ((before, ..), received) = net.client.capture(CLIENT, || {
        // What the interfaces say on their own before anybody listens was copied too.
        let before = frames_of(&mirror);
        let socket = UdpSocket::bind((HOST_V4, 0)).unwrap();
        (0..50).for_each(|_| assert_eq!(socket.send_to(&[5; 100], (CLIENT_V4, 6000)).unwrap(), 100));
        before
    });
    let copies: Vec<_> = received.iter().filter_map(|frame| Outer::read(frame)).collect();
    let nested = copies.iter().filter(|copy| Outer::read(copy.inner).is_some()).count();
    assert_eq!(nested, 0, "no copy holds a copy");
    let of_datagrams = copies.iter().filter(|copy| copy.inner.len() == 14 + 28 + 100).count();
    assert_eq!(of_datagrams, 50);
    let (matched, mirrored, _) = frames_of(&mirror);
    assert_eq!((matched, matched - before), (mirrored, copies.len() as u64));
    // Each copy that left by the tap, and the errors about them.
    let own = mirror.counters().unwrap().own_copies;
    assert!(own > copies.len() as u64, "{own}");
}

#[test]
fn two_hosts_that_mirror_to_each_other_do_not_copy_each_others_copies() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let Some(mirror) = mirrored(plan(vec![target("ids", CLIENT_V4)], vec![session(1, TAP, &all)]), TAP) else { return };
    // What the other host sends: a VXLAN datagram from the target to the tunnel's port here.
    let inner = udp("198.51.100.1:1", "198.51.100.2:2", None, &[1; 20]);
    let copy = udp("10.81.0.2:50000", "10.81.0.1:4789", None, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat());
    net.client.run(move || send(CLIENT, &[copy]));
    assert_eq!(frames_of(&mirror).0, 0);
    assert_eq!(mirror.counters().unwrap().own_copies, 1);
    // To the same port from somebody else, it is traffic.
    let other = udp("10.81.0.77:50000", "10.81.0.1:4789", None, &[1; 20]);
    net.client.run(move || send(CLIENT, &[other]));
    assert_eq!(frames_of(&mirror).1, 1);
}

/// As in a circle of sensors, none of which is the others' target. What another tunnel carries is traffic.
#[test]
fn a_copy_of_a_copy_is_nobodys_traffic() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let Some(mirror) = mirrored(plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)]), TAP) else {
        return;
    };
    let tunnelled = |ends: (&str, &str), tag, inner: &[u8]| {
        udp(ends.0, ends.1, tag, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], inner].concat())
    };
    let (v4, v6) = (("10.81.0.7:50000", "10.81.0.8:4789"), ("[fd81::7]:50000", "[fd81::8]:4789"));
    let other_port = ("10.81.0.7:50000", "10.81.0.8:4790");
    let datagram = udp("198.51.100.1:1", "198.51.100.2:2", None, &[1; 20]);
    for outer in [v4, v6] {
        for inner in [v4, v6] {
            for tag in [None, Some(7)] {
                let twice = tunnelled(outer, None, &tunnelled(inner, tag, &datagram));
                net.client.run(move || send(CLIENT, &[twice]));
            }
        }
    }
    assert_eq!((frames_of(&mirror).0, mirror.counters().unwrap().own_copies), (0, 8));
    let once = [
        tunnelled(v4, None, &datagram),
        tunnelled(v4, None, &tunnelled(other_port, None, &datagram)),
        tunnelled(other_port, None, &tunnelled(v4, None, &datagram)),
        udp(v4.0, v4.1, None, &tunnelled(v4, None, &datagram)),
    ];
    net.client.run(move || send(CLIENT, &once));
    assert_eq!((frames_of(&mirror).0, mirror.counters().unwrap().own_copies), (4, 8));
}

#[test]
fn nothing_comes_in_by_the_tunnel_device() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let with_mirror = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)]);
    let socket = UdpSocket::bind((HOST_V4, 7777)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // As an attacker on the underlay would: a frame for the host inside a VXLAN datagram.
    let inject = || {
        let inner = udp("10.81.0.77:1234", &format!("{HOST_V4}:7777"), None, b"injected");
        let payload = [&[8, 0, 0, 0, 0, 0x10, 0x92, 0][..], &inner].concat();
        net.collector.run(move || {
            let socket = UdpSocket::bind((COLLECTOR_V4, 0)).unwrap();
            socket.send_to(&payload, (OUT_V4, 4789)).unwrap();
        });
        socket.recv_from(&mut [0; 64]).map(|(bytes, _)| bytes).ok()
    };
    // The attack works against a tunnel device as it comes.
    ip("link add vx9 type vxlan external dstport 4789 nolearning");
    ip("link set vx9 up");
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
    std::fs::write("/proc/sys/net/ipv4/conf/vx9/rp_filter", "0").unwrap();
    assert_eq!(inject(), Some(8));
    // Such a device in the way is told by its name.
    match KernelMirror::new(with_mirror.clone(), &super::MirrorSizes::default()) {
        Err(KernelMirrorError::Tunnel(TunnelError::Foreign { name, port })) => {
            assert_eq!((name.as_str(), port.get()), ("vx9", 4789));
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("two devices at one port"),
    }
    ip("link delete vx9");
    let Some(_mirror) = mirror(with_mirror) else { return };
    std::fs::write("/proc/sys/net/ipv4/conf/flowtap-v4789/rp_filter", "0").unwrap();
    assert_eq!(inject(), None);
}

#[test]
fn a_device_that_a_crash_left_is_taken_over_and_one_in_use_is_not() {
    let Some(_net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)]);
    ip("link add flowtap-v4789 type vxlan external dstport 4789");
    let taken = KernelMirror::new(plan.clone(), &super::MirrorSizes::default());
    assert!(matches!(taken, Err(KernelMirrorError::Tunnel(TunnelError::NameTaken { .. }))), "somebody else's");
    std::process::Command::new("ip")
        .args(["link", "set", "flowtap-v4789", "alias", super::super::TUNNEL_ALIAS])
        .status()
        .unwrap();
    let Some(first) = mirror(plan.clone()) else { return };
    let second = KernelMirror::new(plan.clone(), &super::MirrorSizes::default());
    assert!(matches!(second, Err(KernelMirrorError::Tunnel(TunnelError::InUse { .. }))));
    drop(second);
    drop(first);
    assert!(
        !std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("flowtap"),
        "it goes with the mirror"
    );
    drop(mirror(plan));
}

#[test]
fn a_tunnel_device_that_is_removed_is_made_again() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)]);
    let Some(mut mirror) = mirrored(plan, TAP) else { return };
    datagrams(&net, 10, 100);
    assert!(mirror.tend().unwrap().is_empty());
    assert_eq!(mirror.counters().unwrap().devices[0].sent, 10);
    // By another name it does what it did.
    ip("link set flowtap-v4789 down");
    ip("link set flowtap-v4789 name tunnel0");
    ip("link set tunnel0 up");
    run("ethtool", "-K tunnel0 tx on");
    assert_eq!(mirror.tend().unwrap(), []);
    let features = std::process::Command::new("ethtool").args(["-k", "tunnel0"]).output().unwrap().stdout;
    assert!(String::from_utf8(features).unwrap().contains("\ntx-checksumming: off\n"));
    ip("link delete tunnel0");
    datagrams(&net, 10, 100);
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::NoDevice)), ((20, 10, 10), 10));
    let device = "flowtap-v4789".to_owned();
    assert_eq!(mirror.tend().unwrap(), [Notice::DeviceMadeAgain { device }]);
    let ((), received) = net.collector.capture(COLLECTOR, || datagrams(&net, 10, 100));
    assert_eq!(received.iter().filter(|frame| Outer::read(frame).is_some()).count(), 10);
    assert_eq!(frames_of(&mirror), (30, 20, 10));
}

/// Else frames would leave it unfinished.
#[test]
fn checksums_that_somebody_leaves_to_a_card_are_completed_again() {
    let Some(_net) = Net::join() else { return };
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &filter(&[protocol("udp")]))]);
    let Some(mut mirror) = mirrored(plan.clone(), TAP) else { return };
    let features = || {
        let output = std::process::Command::new("ethtool").args(["-k", "flowtap-v4789"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let completes =
        || features().contains("\ntx-checksumming: off\n") && features().contains("\n\ttx-tcp-segmentation: off");
    assert!(completes(), "{}", features());
    for by_plan in [false, true] {
        run("ethtool", "-K flowtap-v4789 tx on");
        assert!(!completes(), "{}", features());
        if by_plan {
            mirror.replace(plan.clone()).unwrap();
        } else {
            assert_eq!(mirror.tend().unwrap(), []);
        }
        assert!(completes(), "{}", features());
    }
}

#[test]
fn a_path_too_small_is_told_and_frames_are_fragmented_or_skipped() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    // A payload of 1472 bytes fills an interface with an MTU of 1500: a frame of 1514, and 1550 from the outer IP header.
    for (mtu, fits) in [(1400, false), (1500, false), (1549, false), (1550, true), (9000, true)] {
        net.mtu(mtu);
        for too_big in [TooBig::Fragment, TooBig::Skip] {
            let mut session = session(1, TAP, &all);
            session.too_big = too_big;
            let Some(mut mirror) = mirrored(plan(vec![target("ids", COLLECTOR_V4)], vec![session]), TAP) else {
                return;
            };
            let notices = mirror.tend().unwrap();
            assert_eq!(notices.is_empty(), fits, "{mtu}: {notices:?}");
            if let [notice] = &notices[..] {
                let text = notice.to_string();
                let fate = if too_big == TooBig::Skip { "skipped" } else { "fragments" };
                assert!(text.contains(&mtu.to_string()) && text.contains("1550") && text.contains(fate), "{text}");
                assert!(mirror.tend().unwrap().is_empty(), "said once");
            }
            let ((), received) = net.collector.capture(COLLECTOR, || datagrams(&net, 5, 1472));
            let outer = received.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 17).count();
            let (skips, fragments) = (outcome(&mirror, CopyOutcome::TooBig), outcome(&mirror, CopyOutcome::Fragmented));
            let expected = match (fits, too_big) {
                (true, _) => (5, 0, 0),
                (false, TooBig::Fragment) => (10, 0, 5),
                (false, TooBig::Skip) => (0, 5, 0),
            };
            assert_eq!((outer, skips, fragments), expected, "MTU {mtu}, {too_big:?}");
            frames_of(&mirror);
        }
    }
}

/// Nobody has looked at the path since it became smaller, so copies go that must not be fragmented.
#[test]
fn what_is_lost_behind_the_tunnel_device_is_told() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)]);
    let again = plan.clone();
    let Some(mut mirror) = mirrored(plan, TAP) else { return };
    // One goes by the tunnel device, then all go past it.
    datagrams(&net, 1, 1472);
    net.mtu(1400);
    datagrams(&net, 5, 1472);
    mirror.tend().unwrap();
    let counters = mirror.counters().unwrap();
    let [device] = &counters.devices[..] else { panic!("{counters:?}") };
    assert_eq!((device.sent, device.dropped, device.errors), (1, 5, 0), "{counters:?}");
    drop(mirror);

    // Where no way past it is known.
    net.mtu(1600);
    ip("xfrm policy add src 192.0.2.0/24 dst 192.0.2.0/24 dir out action block");
    let Some(mut mirror) = mirrored(again, TAP) else { return };
    datagrams(&net, 3, 1472);
    let before = mirror.counters().unwrap().fragmentation.unwrap();
    assert_eq!((before.failed, before.fragments), (0, 0));
    net.mtu(1400);
    datagrams(&net, 5, 1472);
    assert_eq!(frames_of(&mirror), (8, 8, 0));
    mirror.tend().unwrap();
    let counters = mirror.counters().unwrap();
    let [device] = &counters.devices[..] else { panic!("{counters:?}") };
    assert_eq!((device.dropped + device.errors, counters.fragmentation.unwrap().failed), (5, 5), "{counters:?}");
    // Now it is known, and fragments are made: two of each.
    datagrams(&net, 5, 1472);
    let fragmentation = mirror.counters().unwrap().fragmentation.unwrap();
    assert_eq!((fragmentation.failed, fragmentation.fragments), (5, 10));
}

#[test]
fn a_rate_is_kept_and_what_is_beyond_is_counted() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let mut limited = session(1, TAP, &all);
    // A bucket of 123 frames, the least, and ten a second: what comes within a moment is the bucket.
    limited.rate.packets = "10".parse().unwrap();
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![limited]);
    let Some(mirror) = mirrored(plan, TAP) else { return };
    let begun = UNIX_EPOCH.elapsed().unwrap();
    datagrams(&net, 1000, 100);
    // As many as a bucket and the time until now allow, however long that took.
    let most = || 123 + 10 * ((UNIX_EPOCH.elapsed().unwrap() - begun).as_secs() + 1);
    let (matched, mirrored, skipped) = frames_of(&mirror);
    assert_eq!((matched, skipped), (1000, outcome(&mirror, CopyOutcome::RateLimited)));
    assert!((123..=most()).contains(&mirrored), "{mirrored}");
    std::thread::sleep(Duration::from_secs(1));
    datagrams(&net, 100, 100);
    let all = frames_of(&mirror).1;
    assert!((mirrored + 9..=most()).contains(&all), "{mirrored}, then {all}");
}

/// Interfaces and sessions come when rights have been given up, to a mirror that had nothing to do before.
#[test]
fn what_a_run_keeps_of_its_rights_is_enough_to_begin_and_to_end() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = mirror(plan(Vec::new(), Vec::new())) else { return };
    let kept = CapabilitySet::NET_ADMIN | CapabilitySet::BPF;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).unwrap();

    mirror.attach(&Device::find(TAP).unwrap()).unwrap();
    let all = filter(&[protocol("udp")]);
    let mut cut = session(1, TAP, &all);
    cut.packet_length = Some("1000".parse().unwrap());
    for _ in 0..2 {
        mirror.replace(plan(vec![target("ids", COLLECTOR_V4)], vec![cut.clone()])).unwrap();
        let ((), received) = net.collector.capture(COLLECTOR, || datagrams(&net, 10, 100));
        assert_eq!(received.iter().filter(|frame| Outer::read(frame).is_some()).count(), 10);
        mirror.replace(plan(Vec::new(), Vec::new())).unwrap();
        assert!(Device::find("flowtap-v4789").is_err(), "the tunnel device goes with its sessions");
        datagrams(&net, 10, 100);
    }
    ip("tuntap add mode tun name tun8");
    ip("link set tun8 up");
    mirror.attach(&Device::find("tun8").unwrap()).unwrap();
    mirror.replace(plan(vec![target("ids", COLLECTOR_V4)], vec![session(2, "tun8", &all)])).unwrap();
    assert_eq!(mirror.tend().unwrap(), []);
    assert_eq!(frames_of(&mirror), (20, 20, 0));
}

#[test]
fn an_application_does_not_notice_what_becomes_of_its_copies() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    // No route leads there.
    let plan = plan(vec![target("ids", "203.0.113.9")], vec![session(1, TAP, &all)]);
    let Some(mut mirror) = mirrored(plan, TAP) else { return };
    let socket = UdpSocket::bind((HOST_V4, 6000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    net.client.run(|| {
        let socket = UdpSocket::bind((CLIENT_V4, 0)).unwrap();
        let to: SocketAddr = (HOST_V4.parse::<std::net::IpAddr>().unwrap(), 6000).into();
        (0..20).for_each(|_| assert_eq!(socket.send_to(&[1; 50], to).unwrap(), 50));
    });
    (0..20).for_each(|_| assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().0, 50));
    let notices = mirror.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::NoRoute { .. }]), "{notices:?}");
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::NoDevice)), ((20, 0, 20), 20));
    // A route that comes is seen. One that goes is missed until the next look: past the IP stack copies go as they did, and
    // the tunnel device says what became of the one that was handed to it.
    ip("route add 203.0.113.9 via 10.83.0.2");
    let notices = mirror.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::Route { .. }]), "{notices:?}");
    assert_eq!(mirror.tend().unwrap(), []);
    ip("route del 203.0.113.9");
    datagrams(&net, 10, 100);
    let notices = mirror.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::NoRoute { .. }]), "{notices:?}");
    assert_eq!((frames_of(&mirror), mirror.counters().unwrap().devices[0].errors), ((30, 10, 20), 1));
}
