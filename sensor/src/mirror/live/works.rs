//! The parts of a running configuration.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::Receiver;
use nix::net::if_::if_indextoname;

use super::leaving::Leaving;
use super::{Describe, MTU_DEFAULT, Setup, index_of, lock, mtu};
use crate::config::glob::Glob;
use crate::mirror::executor::{Health, Rates};
use crate::mirror::health::{HealthChecks, carried_over};
use crate::mirror::report::Report;
use crate::mirror::sender::{NetworkOutlet, Senders, WhenFull};
use crate::mirror::socket::{OpenError, TargetSocket};
use crate::mirror::{Executor, Mirror, Target, Vni};
use crate::time::Timestamp;

/// The parts of a running configuration.
pub(super) struct Works {
    pub(super) executor: Executor<NetworkOutlet>,
    pub(super) senders: Senders,
    health: Health,
    _checks: Option<HealthChecks>,
    pub(super) mirror: Mirror,
    vnis: Vec<Vni>,
    watch: Vec<Glob>,
    describe: Describe,
    pub(super) names: Names,
}

/// Targets whose health is known.
pub(super) struct Known {
    pub(super) targets: Vec<Target>,
    pub(super) health: Health,
}

impl Known {
    pub(super) fn nothing() -> Self {
        Self { targets: Vec::new(), health: Health::new(0) }
    }
}

/// The names of interfaces by our index of them, shared with the executor's question for what it must know of them.
pub(super) type Names = Arc<Mutex<Vec<String>>>;

impl Works {
    /// Checks targets, if nobody else has their `health`; those that are `known` begin as they stand.
    pub(super) fn new(setup: Setup, health: Option<Health>, known: &Known, now: Timestamp) -> io::Result<Self> {
        let Setup { mirror, vnis, watch, describe, .. } = setup;
        let sockets = mirror.targets().iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let senders = Senders::start(mirror.targets(), sockets, mirror.sessions().len())?;
        let (health, checks) = match health {
            Some(health) => (health, None),
            None => {
                let health = carried_over(&known.targets, &known.health, mirror.targets());
                let checks = HealthChecks::start(mirror.targets(), &health)?;
                (health, Some(checks))
            }
        };
        let names = Names::default();
        let (known, by_index) = (Arc::clone(&describe), Arc::clone(&names));
        let describe_index = Box::new(move |index: u16| {
            let name = lock(&by_index).get(usize::from(index)).cloned()?;
            known(&name, mtu(&name))
        });
        let outlet = senders.outlet(WhenFull::Skip);
        let rates = Rates::Hold(now);
        let executor = Executor::new(&mirror, &vnis, rates, health.clone(), describe_index, outlet);
        Ok(Self { executor, senders, health, _checks: checks, mirror, vnis, watch, describe, names })
    }

    /// Its targets, and how they stand now and later.
    pub(super) fn known(&self) -> Known {
        Known { targets: self.mirror.targets().to_vec(), health: self.health.clone() }
    }

    pub(super) fn report(&self) -> Report {
        let mut counts = self.executor.counts();
        let sent = self.senders.counts();
        counts.iter_mut().zip(lock(&sent).iter()).for_each(|(ours, theirs)| ours.merge(theirs));
        Report::new(&self.mirror, &self.vnis, &counts, self.executor.unasked())
    }

    /// Takes no more frames; what is queued is sent until the time is over, which is told by a message.
    pub(super) fn leave(self, over: Receiver<Instant>) -> Leaving {
        let (counts, unasked) = (self.executor.counts(), self.executor.unasked());
        drop(self.executor.into_outlet());
        let before = Report::new(&self.mirror, &self.vnis, &counts, unasked);
        Leaving::new(self.senders, before, over)
    }

    /// Our index of a device, if a session applies to it. An error means that it is gone.
    pub(super) fn interface(&self, device: u32) -> nix::Result<Option<u16>> {
        let name = if_indextoname(device)?.to_string_lossy().into_owned();
        Ok(if self.wants(&name) { index_of(&self.names, &name) } else { None })
    }

    /// Whether a session applies to an interface that is watched.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.watch.iter().any(|pattern| pattern.matches(name)) && (self.describe)(name, MTU_DEFAULT).is_some()
    }
}

/// The way to a target; `None` where there is none yet. A right that is missing won't come.
fn open(target: &Target) -> io::Result<Option<TargetSocket>> {
    match TargetSocket::open(target) {
        Ok(socket) => Ok(Some(socket)),
        Err(OpenError::NoSocket(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(OpenError::NoRoute(_) | OpenError::NoSocket(_)) => Ok(None),
    }
}
