//! Beside the classifiers of tc: where ours stands among them, and which of their drops come after it.

use super::{
    super::{Attachment, Device, Drain, Taps},
    SMALL, Sums,
    namespace::{FAR_V4, NEAR, NEAR_V4, Pair},
    plane,
};
use crate::capture::Direction;
use std::{net::UdpSocket, process::Command};

/// Has tc drop datagrams to a port at one hook of the interface. The classic program loads the destination port of an
/// Ethernet frame with a plain IPv4 header, and answers 2 (TC_ACT_SHOT) or -1 (TC_ACT_UNSPEC).
fn tc_drops(hook: &str, port: u16) -> bool {
    let program = format!("4,40 0 0 36,21 0 1 {port},6 0 0 2,6 0 0 4294967295,");
    let mut tc = Command::new("tc");
    tc.args(["filter", "add", "dev", NEAR, hook, "prio", "1", "protocol", "ip", "bpf", "da", "bytecode", &program]);
    tc.status().is_ok_and(|status| status.success())
}

fn watched_by(attachment: Attachment) -> Option<(Pair, Taps, Drain, Device)> {
    if attachment == Attachment::Tcx && Attachment::best() != Attachment::Tcx {
        eprintln!("skipped: needs TCX (Linux 6.6)");
        return None;
    }
    let pair = Pair::join()?;
    let (mut taps, drain) = plane(&SMALL)?;
    taps.attach_by(attachment);
    let device = Device::find(NEAR).unwrap();
    taps.attach(&device).unwrap();
    Some((pair, taps, drain, device))
}

/// Sends datagrams in both directions, to ports of which one is dropped at each hook.
fn exchange(pair: &Pair) {
    let send = |to: &str, ports: [u16; 2]| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in ports {
            for _ in 0..3 {
                // A drop on the way out may be told to the sender, or not.
                socket.send_to(&[0; 100], (to, port)).ok();
            }
        }
    };
    send(FAR_V4, [5001, 5002]);
    pair.far(move || send(NEAR_V4, [5003, 5004]));
}

/// Packets counted, and verdicts with whether they had been counted, of one direction and port.
fn sums(sums: &Sums, direction: Direction, port: u16) -> (u64, Vec<(bool, u64)>) {
    let flows = sums.flows.iter().filter(|(flow, _)| flow.direction == direction && flow.dst_port == port);
    let verdicts = sums
        .verdicts
        .iter()
        .filter(|(verdict, _)| verdict.flow.direction == direction && verdict.flow.dst_port == port);
    let counted = flows.map(|(_, counts)| counts.packets).sum();
    (counted, verdicts.map(|(verdict, counts)| (verdict.counted, counts.packets)).collect())
}

fn check_drops_of_tc(attachment: Attachment, counted_before: bool) {
    let Some((pair, mut taps, mut kernel, device)) = watched_by(attachment) else { return };
    // The discipline may be there already, by our own attaching.
    Command::new("tc").args(["qdisc", "add", "dev", NEAR, "clsact"]).output().unwrap();
    if !tc_drops("egress", 5002) || !tc_drops("ingress", 5004) {
        eprintln!("skipped: no classifier of tc that drops can be had here");
        return;
    }
    let numbers = ["TC_INGRESS", "TC_EGRESS"].map(|name| taps.reasons().number(name).unwrap());
    taps.want(&numbers).unwrap();
    taps.attach_verdicts().unwrap();
    let mut before = Sums::default();
    kernel.drain(&mut before).unwrap();
    exchange(&pair);
    let mut all = Sums::default();
    kernel.drain(&mut all).unwrap();

    assert_eq!(sums(&all, Direction::Egress, 5001), (3, vec![]), "{}", device.name);
    assert_eq!(sums(&all, Direction::Ingress, 5003), (3, vec![]));
    let counted = if counted_before { 3 } else { 0 };
    assert_eq!(sums(&all, Direction::Egress, 5002), (counted, vec![(counted_before, 3)]));
    assert_eq!(sums(&all, Direction::Ingress, 5004), (counted, vec![(counted_before, 3)]));
}

#[test]
fn drops_of_tc_come_after_a_link_of_tcx() {
    check_drops_of_tc(Attachment::Tcx, true);
}

#[test]
fn drops_of_tc_come_before_a_classifier_that_is_the_last() {
    check_drops_of_tc(Attachment::Clsact, false);
}

#[test]
fn a_classifier_replaces_what_a_killed_run_left_and_leaves_others_alone() {
    let Some((pair, taps, _drain, device)) = watched_by(Attachment::Clsact) else { return };
    let has_filter = tc_drops("ingress", 5004);
    // As a killed run: its classifiers stay.
    std::mem::forget(taps);
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    taps.attach_by(Attachment::Clsact);
    taps.attach(&device).unwrap();
    exchange(&pair);
    let mut all = Sums::default();
    kernel.drain(&mut all).unwrap();
    assert_eq!(sums(&all, Direction::Ingress, 5003).0, 3);
    assert_eq!(sums(&all, Direction::Ingress, 5004).0, if has_filter { 0 } else { 3 });
    let shown = |hook| {
        let output = Command::new("tc").args(["filter", "show", "dev", NEAR, hook]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(shown("ingress").matches(" name flow_ingress").count(), 1, "{}", shown("ingress"));
    drop(taps);
    assert!(!shown("ingress").contains("flow_ingress") && !shown("egress").contains("flow_egress"));
    assert_eq!(shown("ingress").contains("bytecode"), has_filter, "what is not ours stays");
}
