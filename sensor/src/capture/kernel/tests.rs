//! The kernel's programs, run by the kernel itself: on byte arrays, under flips, and on real interfaces.
//!
//! Needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON) and Linux 5.17 with BTF; elsewhere, and where it needs more,
//! each test says that it was skipped.

mod drops;
mod flips;
mod frames;
mod headers;
mod live;
mod namespace;
mod shaping;

use super::{Counts, Drain, Flow, Harvest, LoadError, Reason, Sizes, Taps, Verdict, load};
use std::collections::HashMap;

/// Everything a drain brings, added up.
#[derive(Debug, Default)]
struct Sums {
    flows: HashMap<Flow, Counts>,
    verdicts: HashMap<Verdict, Counts>,
    apart: HashMap<(u32, Reason), u64>,
}

impl Harvest for Sums {
    fn flow(&mut self, flow: &Flow, counts: &Counts) {
        self.flows.entry(*flow).and_modify(|sum| add(sum, counts)).or_insert(*counts);
    }

    fn verdict(&mut self, verdict: &Verdict, counts: &Counts) {
        self.verdicts.entry(*verdict).and_modify(|sum| add(sum, counts)).or_insert(*counts);
    }

    fn apart(&mut self, interface: u32, reason: Reason, more: u64) {
        *self.apart.entry((interface, reason)).or_default() += more;
    }
}

fn add(sum: &mut Counts, counts: &Counts) {
    sum.packets += counts.packets;
    sum.bytes += counts.bytes;
    sum.first_ns = sum.first_ns.min(counts.first_ns);
    sum.last_ns = sum.last_ns.max(counts.last_ns);
    sum.marks = sum.marks.and(counts.marks);
}

impl Sums {
    fn packets(&self) -> u64 {
        self.flows.values().map(|counts| counts.packets).sum()
    }
}

const SMALL: Sizes = Sizes {
    flows_max: 4096,
    verdicts_max: 256,
    fragments_max: 64,
    reasons_max: 64,
    overflow_bytes: 1 << 16,
    copies_bytes: 1 << 16,
};

/// The kernel plane, or `None` where this machine does not let us.
fn plane(sizes: &Sizes) -> Option<(Taps, Drain)> {
    match load(sizes) {
        Ok(halves) => Some(halves),
        Err(error @ (LoadError::Permission | LoadError::NoBarrier | LoadError::Btf(_))) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}
