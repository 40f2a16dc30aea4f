//! Nothing is lost and nothing counted twice while generations are flipped, and when maps have no room.

use super::{
    super::{Drain, Reason, Sizes, Taps},
    SMALL, Sums,
    frames::{IPV4, ethernet, ipv4, tcp},
    plane,
};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use std::sync::atomic::{AtomicBool, Ordering};

/// As many frames, each a flow of its own: the destination port differs.
fn flows(count: u16) -> Vec<Vec<u8>> {
    let frame = |port: u16| {
        let mut segment = tcp(0x10, 0);
        segment[2..4].copy_from_slice(&port.to_be_bytes());
        ethernet(IPV4, &ipv4(6, &segment))
    };
    (0..count).map(frame).collect()
}

fn send(program: &SchedClassifier, frames: &[Vec<u8>], repeat: u32) {
    for frame in frames {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        program.test_run(options).unwrap();
    }
}

fn drain(kernel: &mut Drain, sums: &mut Sums) {
    kernel.drain(sums).unwrap();
}

#[test]
fn flips_under_two_senders_lose_nothing() {
    const FLIPS: u32 = 100;
    const SENDERS: usize = 2;
    const REPEAT: u32 = 500;
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let program: &SchedClassifier = taps.classifier("flow_ingress").unwrap();
    // The same flows in the same order, so that both often bring a new one at once.
    let frames = flows(64);
    let mut sums = Sums::default();
    let done = AtomicBool::new(false);
    let rounds: u64 = std::thread::scope(|scope| {
        let sender = || {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                send(program, &frames, REPEAT);
                rounds += 1;
            }
            rounds
        };
        let senders = [(); SENDERS].map(|()| scope.spawn(sender));
        (0..FLIPS).for_each(|_| drain(&mut kernel, &mut sums));
        done.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    // What is left in either generation.
    drain(&mut kernel, &mut sums);
    drain(&mut kernel, &mut sums);
    let per_flow = rounds * u64::from(REPEAT);
    assert!(rounds > 0);
    assert_eq!(sums.packets(), per_flow * 64);
    assert_eq!(sums.flows.len(), 64);
    assert!(sums.flows.values().all(|counts| counts.packets == per_flow && counts.bytes == per_flow * 40));
    assert!(sums.apart.is_empty(), "{:?}", sums.apart);
}

#[test]
fn what_finds_no_room_comes_through_the_ring_or_is_told_as_lost() {
    let sizes = Sizes { flows_max: 100, overflow_bytes: 4096, ..SMALL };
    let Some((mut taps, mut kernel)) = plane(&sizes) else { return };
    let program: &mut SchedClassifier = taps.classifier("flow_ingress").unwrap();
    // A record takes 96 bytes and the kernel's header of 8: fewer than 40 fit into a page.
    let frames = flows(300);
    send(program, &frames, 2);
    let mut sums = Sums::default();
    let drained = kernel.drain(&mut sums).unwrap();
    let lost = sums.apart.get(&(1, Reason::FlowLost)).copied().unwrap_or(0);
    assert_eq!((drained.flows, drained.refused), (100, 0));
    assert!((20..40).contains(&drained.overflowed), "{drained:?}");
    assert_eq!(sums.packets() + lost, 600, "{drained:?}");
    assert_eq!(lost, 600 - 200 - drained.overflowed);

    // The ring alone can be emptied before the next flip.
    let full = flows(101);
    send(program, &full, 1);
    let mut early = Sums::default();
    assert_eq!((kernel.drain_overflow(&mut early).overflowed, early.packets()), (1, 1));
    kernel.drain(&mut Sums::default()).unwrap();

    // The next drain tells only what came since, and the maps have room again.
    send(program, &frames[..50], 1);
    let mut sums = Sums::default();
    let drained = kernel.drain(&mut sums).unwrap();
    assert_eq!((drained.flows, drained.overflowed, sums.packets()), (50, 0, 50));
    assert!(sums.apart.is_empty(), "{:?}", sums.apart);
}

#[test]
fn counters_of_a_gone_interface_are_forgotten() {
    let Some((mut taps, mut kernel)) = plane(&SMALL) else { return };
    let arp = ethernet(0x0806, &[0; 28]);
    let mut count = |taps: &mut Taps| {
        send(taps.classifier("flow_egress").unwrap(), std::slice::from_ref(&arp), 3);
        let mut sums = Sums::default();
        kernel.drain(&mut sums).unwrap();
        kernel.forget(1).unwrap();
        sums.apart.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(count(&mut taps), [((1, Reason::Arp), 3)]);
    assert_eq!(count(&mut taps), [((1, Reason::Arp), 3)]);
}
