//! Which of several targets gets a flow: weighted rendezvous, symmetric and sticky.
//!
//! What a target draws is [`flowtap_abi::choice`], which the kernel's executor uses too: both give a flow to the same one.

use std::net::IpAddr;

use flowtap_abi::choice::{self, mix};

use super::flow_hash::FlowHash;

/// One of the targets among which flows are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Tells the target from the others for as long as it is configured: [`identity`].
    pub identity: u64,
    /// Its share, relative to the others: [`choice::inverse_weight`].
    pub inverse_weight: u64,
    /// Whether it may get flows now.
    pub is_healthy: bool,
}

/// The place in `candidates` of the one that gets the flow; `None` where none is healthy.
#[inline]
pub fn choose(flow: FlowHash, candidates: &[Candidate]) -> Option<usize> {
    if let [only] = candidates {
        return only.is_healthy.then_some(0);
    }
    let healthy = candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_healthy);
    let drawn = healthy.map(|(at, one)| (at, choice::draw(flow.0, one.identity, one.inverse_weight)));
    // Of equal draws the first.
    drawn.min_by_key(|(_, drawn)| *drawn).map(|(at, _)| at)
}

/// The identity of the target at this address, on every sensor the same.
pub fn identity(address: IpAddr, port: u16) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    mix(mix(mix((bits >> 64) as u64) ^ bits as u64) ^ u64::from(port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::flow_hash::tests::packet;
    use super::*;
    use crate::packet::Addresses;

    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        let of = |(at, weight): (usize, &u16)| Candidate {
            identity: 0x0a53_0000 + at as u64,
            inverse_weight: choice::inverse_weight(*weight),
            is_healthy: true,
        };
        weights.iter().enumerate().map(of).collect()
    }

    /// The n-th of a series of flows without any pattern: xorshift, which shares nothing with what is tested.
    fn flows() -> impl Iterator<Item = (u32, u32, u16, u16, u8)> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        std::iter::from_fn(move || {
            let (addresses, ports) = (next(), next());
            let protocol = if ports >> 40 & 1 == 0 { 6 } else { 17 };
            Some(((addresses >> 32) as u32, addresses as u32, (ports >> 16) as u16, ports as u16, protocol))
        })
    }

    /// M4 of the specification.
    #[test]
    fn a_hundred_thousand_flows_meet_and_spread() {
        let targets = candidates(&[1; 5]);
        let (mut by_target, mut by_sixteenth) = ([0_u32; 5], [0_u32; 16]);
        for (src, dst, src_port, dst_port, protocol) in flows().take(100_000) {
            let there = packet(Addresses::V4 { src, dst }, protocol, src_port, dst_port);
            let back = packet(Addresses::V4 { src: dst, dst: src }, protocol, dst_port, src_port);
            let hash = FlowHash::of(&there);
            let (port, target) = (hash.source_port(), choose(hash, &targets).unwrap());
            let hash = FlowHash::of(&back);
            assert_eq!((hash.source_port(), choose(hash, &targets).unwrap()), (port, target));
            by_target[target] += 1;
            by_sixteenth[usize::from((port - 49_152) / 1024)] += 1;
        }
        for count in by_target {
            assert!((19_000..=21_000).contains(&count), "{by_target:?}");
        }
        for count in by_sixteenth {
            // 6250, give or take a twentieth.
            assert!((5_938..=6_562).contains(&count), "{by_sixteenth:?}");
        }
    }

    #[test]
    fn weights_are_shares() {
        let targets = candidates(&[1, 2, 5]);
        let mut counts = [0_u32; 3];
        for hash in (0..80_000_u64).map(|n| FlowHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))) {
            counts[choose(hash, &targets).unwrap()] += 1;
        }
        for (count, expected) in counts.into_iter().zip([10_000_u32, 20_000, 50_000]) {
            assert!(count.abs_diff(expected) < expected / 20, "{counts:?}");
        }
    }

    #[test]
    fn without_a_healthy_target_nobody_is_chosen() {
        let mut targets = candidates(&[1, 1]);
        targets.iter_mut().for_each(|target| target.is_healthy = false);
        assert_eq!(choose(FlowHash(1), &targets), None);
        assert_eq!(choose(FlowHash(1), &targets[..1]), None);
        assert_eq!(choose(FlowHash(1), &[]), None);
    }

    proptest! {
        #[test]
        fn only_a_removed_targets_flows_move(
            hash: u64, weights in proptest::collection::vec(1_u16..=1000, 2..8), removed: prop::sample::Index,
        ) {
            let mut targets = candidates(&weights);
            let before = choose(FlowHash(hash), &targets).unwrap();
            let removed = removed.index(targets.len());
            targets[removed].is_healthy = false;
            let after = choose(FlowHash(hash), &targets).unwrap();
            prop_assert!(before == removed || before == after);
            prop_assert_ne!(after, removed);
            // It comes to the same whether the target is known and down, or not known.
            let gone = targets.remove(removed);
            let position = choose(FlowHash(hash), &targets).unwrap();
            let identity = targets[position].identity;
            targets.insert(removed, gone);
            prop_assert_eq!(identity, targets[after].identity);
        }
    }
}
