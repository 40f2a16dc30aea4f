//! From the flows of a closed window to records in a sink.
//!
//! The recorder waits for every worker's share of a window, merges them, asks the policy for verdicts, and writes a
//! record a flow, in the order of keys; then a SKIPDATA record for each interface that lost something. At the end of
//! each window it checks that the rows sum to the packets that were put in.

mod pass;
mod row;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use flowlog::metadata::Metadata;
use flowlog::record::Record;
use flowlog::sink::{Sink, SinkError};

use crate::capture::{Interface, Interfaces};
use crate::classify::{Classifier, LocalNetworks};
use crate::config::{SkippedTraffic, TrafficSelection};
use crate::flow::FlowTable;
use crate::flow::interval::Window;
use crate::flow::merge::Merged;
use crate::ledger::RowCounts;
use crate::policy::{Policy, PolicyError};
use crate::time::NANOS_PER_SEC;
use crate::worker::{Handover, Share};
use pass::Pass;

/// What the recorder needs to know beside the flows.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The aggregation interval.
    pub interval_secs: u32,
    /// The classes whose flows get no record.
    pub skipped_traffic: SkippedTraffic,
    /// The actions whose flows get a record.
    pub traffic: TrafficSelection,
    /// How many threads make lines of records.
    pub threads: NonZeroUsize,
    /// Whether the format asks for the Community ID, which costs more than the rest of a record.
    pub with_community_id: bool,
    /// Seed for the tables of fragments.
    pub seed: u64,
}

/// What is known of one interface.
#[derive(Debug)]
pub struct InterfaceFacts {
    /// What its records repeat.
    pub metadata: Arc<Metadata>,
    /// Which of its flows AWS would skip.
    pub classifier: Classifier,
    /// Which addresses are its own side.
    pub local: LocalNetworks,
}

/// Tells what is known of an interface that has come up in the capture.
pub type Describe = Box<dyn Fn(&Interface) -> InterfaceFacts + Send>;

/// Why no more records can be written.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The records have nowhere to go.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The policy can't be applied to an interface of the capture.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A fault of ours.
    #[error("a worker panicked: this is a fault in flowtap, please report it with the message above")]
    WorkerPanicked,
}

/// Turns shares of windows into records.
pub struct Recorder {
    rules: Rules,
    policy: Option<Policy>,
    interfaces: Interfaces,
    describe: Describe,
    /// By interface, as far as met.
    facts: Vec<InterfaceFacts>,
    sink: Box<dyn Sink>,
    homes: Vec<Sender<Share>>,
    /// Closed windows that still lack a share, by their place in the order.
    waiting: BTreeMap<u64, Gathering>,
    next_order: u64,
    counts: RowCounts,
}

/// A closed window whose shares are coming in.
struct Gathering {
    window: Window,
    missing: usize,
    shares: Vec<Share>,
    losses: Vec<u16>,
}

impl Recorder {
    /// A recorder without a `policy` takes everything captured for ACCEPT. It gives each worker's tables back
    /// through `homes`, one sender a worker.
    pub fn new(
        rules: Rules,
        policy: Option<Policy>,
        interfaces: Interfaces,
        describe: Describe,
        sink: Box<dyn Sink>,
        homes: Vec<Sender<Share>>,
    ) -> Self {
        Self {
            rules,
            policy,
            interfaces,
            describe,
            facts: Vec::new(),
            sink,
            homes,
            waiting: BTreeMap::new(),
            next_order: 0,
            counts: RowCounts::default(),
        }
    }

    /// Writes what the workers hand over until they are done.
    ///
    /// # Errors
    /// What the sink could not write, or a policy that contradicts itself on an interface.
    pub fn run(&mut self, handovers: &Receiver<Handover>) -> Result<(), RecorderError> {
        for handover in handovers {
            match handover {
                Handover::Panicked => return Err(RecorderError::WorkerPanicked),
                Handover::Early { window, share } => self.write(window, vec![share], &[])?,
                Handover::Closed { closing, share, losses } => {
                    let missing = self.homes.len();
                    let gathering = self.waiting.entry(closing.order).or_insert_with(|| Gathering {
                        window: closing.window,
                        missing,
                        shares: Vec::new(),
                        losses: Vec::new(),
                    });
                    gathering.missing -= 1;
                    gathering.shares.extend(share);
                    gathering.losses.extend(losses);
                    self.write_complete()?;
                }
            }
        }
        Ok(())
    }

    /// Lets go of workers that wait for a table to come home.
    pub fn release_workers(&mut self) {
        self.homes.clear();
        self.waiting.clear();
    }

    /// What became of the flows, and the sink, to be finished.
    pub fn into_parts(mut self) -> (RowCounts, Box<dyn Sink>) {
        self.counts.policy = self.policy.as_ref().map(Policy::counters).unwrap_or_default();
        (self.counts, self.sink)
    }

    /// Writes the windows that are complete, in the order in which they closed.
    fn write_complete(&mut self) -> Result<(), RecorderError> {
        while self.waiting.get(&self.next_order).is_some_and(|gathering| gathering.missing == 0) {
            let Some(mut done) = self.waiting.remove(&self.next_order) else { break };
            self.next_order += 1;
            done.losses.sort_unstable();
            done.losses.dedup();
            self.counts.intervals += u64::from(!done.window.late);
            self.write(done.window, done.shares, &done.losses)?;
            if !done.window.late {
                let window_end_secs = done.window.start_ns / NANOS_PER_SEC + u64::from(self.rules.interval_secs);
                self.sink.advance(window_end_secs.cast_signed())?;
            }
        }
        Ok(())
    }

    fn write(&mut self, window: Window, shares: Vec<Share>, losses: &[u16]) -> Result<(), RecorderError> {
        let mut owners = Vec::with_capacity(shares.len());
        let mut tables = Vec::with_capacity(shares.len() + 1);
        for Share { worker, flows, table } in shares {
            owners.push((worker, flows));
            tables.push(table);
        }
        let packets_in: u64 = tables.iter().map(|table| table.packets).sum();
        let bytes_in: u64 = tables.iter().map(|table| table.bytes).sum();
        Merged::join_fragments(&mut tables, FlowTable::new(self.rules.seed));
        let written = self.write_flows(window, &Merged::new(&tables))?;
        if written.of_all_flows() != (packets_in, bytes_in) {
            self.counts.unbalanced += 1;
        }
        self.counts.add(&written);
        for interface in losses {
            self.write_skipdata(window, *interface)?;
        }
        for (table, (worker, flows)) in tables.into_iter().zip(owners) {
            if let Some(home) = self.homes.get(worker) {
                // A worker that has finished needs its table no more.
                home.send(Share { worker, flows, table }).ok();
            }
        }
        Ok(())
    }

    /// Writes the flows and says what became of them.
    fn write_flows(&mut self, window: Window, merged: &Merged<'_>) -> Result<RowCounts, RecorderError> {
        self.meet_interfaces()?;
        let Self { rules, policy, facts, sink, .. } = self;
        let settled = policy.as_mut().map(|policy| {
            let mut observing = policy.begin_interval();
            for flow in merged.flows() {
                if let Some(facts) = facts.get(usize::from(flow.key.interface)) {
                    observing.observe(&facts.view(&flow));
                }
            }
            observing.settle()
        });
        Pass { rules, facts, settled, late: window.late }.write(merged, sink.as_mut())
    }

    /// Tells that an interface's interval is missing packets.
    fn write_skipdata(&mut self, window: Window, interface: u16) -> Result<(), RecorderError> {
        self.meet_interfaces()?;
        let start_secs = (window.start_ns / NANOS_PER_SEC).cast_signed();
        let end_secs = start_secs + i64::from(self.rules.interval_secs) - 1;
        let Some(facts) = self.facts.get(usize::from(interface)) else { return Ok(()) };
        self.sink.write(&Record::skip_data(Arc::clone(&facts.metadata), start_secs, end_secs))?;
        self.counts.rows_skipdata += 1;
        Ok(())
    }

    /// Learns of the interfaces that have come up since the last window.
    fn meet_interfaces(&mut self) -> Result<(), PolicyError> {
        while let Ok(index) = u16::try_from(self.facts.len())
            && let Some(interface) = self.interfaces.get(index)
        {
            if let Some(policy) = &mut self.policy {
                policy.bind(index, &interface.name)?;
            }
            self.facts.push((self.describe)(&interface));
        }
        Ok(())
    }
}
