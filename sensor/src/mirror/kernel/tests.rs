//! The mirroring programs, run by the kernel itself.
//!
//! Needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON) and Linux 6.6 with BTF; elsewhere each test says that it was
//! skipped.

mod alike;
mod bare;
mod copies;
mod direct;
mod frames;
mod harm;
mod net;
mod rules;
mod targets;

use super::{CopyOutcome, KernelMirror, KernelMirrorError, MirrorSizes, Plan, ProgramsError};
use crate::{
    capture::kernel::Device,
    classify::Classifier,
    mirror::{
        Criteria, Encapsulation, Filter, Mirror, Mode, Offload, RateLimit, Rule, RuleAction, Session, Target, TooBig,
        Vni, Weight,
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// A target at that address.
fn target(name: &str, address: &str) -> Target {
    Target {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: Encapsulation::Vxlan.port_default(),
        encapsulation: Encapsulation::Vxlan,
        weight: Weight::default(),
        health_check: None,
    }
}

/// A filter whose rules are the same in both directions, numbered from 1 on.
fn filter(rules: &[(RuleAction, Criteria)]) -> Arc<Filter> {
    let rules = || -> BTreeMap<_, _> {
        let rule = |(number, (action, criteria)): (u16, &(RuleAction, Criteria))| {
            let number = number.to_string().parse().unwrap();
            (number, Rule::new(number, *action, criteria.clone(), None).unwrap())
        };
        (1..).zip(rules).map(rule).collect()
    };
    Arc::new(Filter::new("filter".to_owned(), rules(), rules()))
}

/// Accepts a protocol, whoever has it.
fn protocol(name: &str) -> (RuleAction, Criteria) {
    (RuleAction::Accept, Criteria { protocol: name.parse().unwrap(), ..Criteria::default() })
}

/// A session of that interface with the first target, without limits.
fn session(number: u16, interface: &str, filter: &Arc<Filter>) -> Session {
    Session {
        number: number.to_string().parse().unwrap(),
        interface: interface.parse().unwrap(),
        filter: Arc::clone(filter),
        targets: vec![0],
        mode: Mode::Balance,
        vni: Vni::new(4242),
        packet_length: None,
        too_big: TooBig::Fragment,
        offload: Offload::Software,
        rate: unlimited(),
        description: None,
    }
}

fn unlimited() -> RateLimit {
    RateLimit { packets: "unlimited".parse().unwrap(), bits: "unlimited".parse().unwrap() }
}

fn plan(targets: Vec<Target>, sessions: Vec<Session>) -> Plan {
    let mirror = Mirror::new(targets, Vec::new(), sessions, false);
    let vnis = mirror.vnis("host");
    Plan { mirror, vnis, classifier: Arc::new(|_: &str| Classifier::default()) }
}

/// The mirror in the kernel, or `None` where this machine does not let us.
fn mirror(plan: Plan) -> Option<KernelMirror> {
    match KernelMirror::new(plan, &MirrorSizes::default()) {
        Ok(mirror) => Some(mirror),
        Err(KernelMirrorError::Programs(ProgramsError::Object(error))) if nix::unistd::geteuid().as_raw() != 0 => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Matched, mirrored and skipped frames of all sessions and both directions.
fn frames_of(mirror: &KernelMirror) -> (u64, u64, u64) {
    let counters = mirror.counters().unwrap();
    let totals = counters.sessions.iter().flat_map(|session| [session.ingress, session.egress]);
    totals.fold((0, 0, 0), |(matched, mirrored, skipped), totals| {
        assert!(totals.balances(), "{counters:?}");
        let of = |outcome| totals.of(outcome).0;
        (matched + of(CopyOutcome::Matched), mirrored + of(CopyOutcome::Mirrored), skipped + totals.skipped().0)
    })
}

/// Frames of one outcome, over all sessions and both directions.
fn outcome(mirror: &KernelMirror, outcome: CopyOutcome) -> u64 {
    let counters = mirror.counters().unwrap();
    counters.sessions.iter().map(|session| session.ingress.of(outcome).0 + session.egress.of(outcome).0).sum()
}

/// The mirror of that plan, attached to an interface.
fn mirrored(plan: Plan, interface: &str) -> Option<KernelMirror> {
    let mut mirror = mirror(plan)?;
    mirror.attach(&Device::find(interface).unwrap()).unwrap();
    Some(mirror)
}
