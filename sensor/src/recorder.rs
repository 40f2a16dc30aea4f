//! From the flows of a closed window to records in a sink.
//!
//! The recorder waits for every worker's share of a window, merges them, asks the policy for verdicts, and writes a
//! record a flow, in the order of keys; then a SKIPDATA record for each interface that lost something. At the end of
//! each window it checks that the rows sum to the packets that were put in.
//!
//! A [`Live`] run differs in three ways: an interface that was watched and quiet gets a NODATA record, every closed
//! interval is published at once, and the [`Recording`] may change between two intervals.

mod pass;
mod row;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use flowlog::metadata::Metadata;
use flowlog::record::Record;
use flowlog::segment::Published;
use flowlog::sink::{Sink, SinkError};

use crate::capture::{DropReasons, Interface, Interfaces, Roster};
use crate::classify::{Classifier, LocalNetworks};
use crate::config::{SkippedTraffic, TrafficSelection};
use crate::flow::FlowTable;
use crate::flow::interval::Window;
use crate::flow::merge::Merged;
use crate::ledger::RowCounts;
use crate::policy::{Policy, PolicyCounters, PolicyError};
use crate::time::{NANOS_PER_SEC, Timestamp};
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
    /// What stands in `srcaddr` or `dstaddr` for its own side of IPv4 packets, if not what the packet has: AWS, "Flow
    /// log limitations".
    pub stand_in: Option<Ipv4Addr>,
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

/// How flows become records: what a live run may exchange between two intervals.
pub struct Recording {
    /// What gets a record.
    pub rules: Rules,
    /// Security groups and network ACLs. Without them everything captured is ACCEPT.
    pub policy: Option<Policy>,
    /// Gives an interface its metadata.
    pub describe: Describe,
}

/// What a recorder of a live run has beside.
pub struct Live {
    /// Says which interfaces were watched.
    pub roster: Roster,
    /// Says what the reasons are called for which the kernel turned packets away.
    pub drop_reasons: DropReasons,
    /// Brings what comes with a new generation of the configuration.
    pub changes: Receiver<Change>,
    /// Is told of every interval that was published.
    pub published: Box<dyn FnMut(&Milestone<'_>) + Send>,
}

/// A new generation of the configuration.
pub struct Change {
    /// The first generation that it is for.
    pub generation: u32,
    /// How flows become records from then on.
    pub recording: Recording,
    /// Where they go; `None` leaves that as it is.
    pub sink: Option<Box<dyn Sink>>,
}

/// How far a live run has come.
#[derive(Debug)]
pub struct Milestone<'a> {
    /// Unix seconds: every interval that ended by then is published.
    pub until_secs: u64,
    /// The files published since the last one.
    pub files: Vec<Published>,
    /// What became of the flows so far.
    pub counts: &'a RowCounts,
}

/// Turns shares of windows into records.
pub struct Recorder {
    recording: Recording,
    generation: u32,
    interfaces: Interfaces,
    /// By interface, as far as met.
    facts: Vec<InterfaceFacts>,
    sink: Box<dyn Sink>,
    live: Option<Live>,
    homes: Vec<Sender<Share>>,
    /// Closed windows that still lack a share, by their place in the order.
    waiting: BTreeMap<u64, Gathering>,
    next_order: u64,
    /// Interfaces with rows in windows that are still open, by the window's serial.
    early: BTreeMap<u64, Vec<u16>>,
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
    /// A recorder of a capture. It gives each worker's tables back through `homes`, one sender a worker.
    pub fn new(recording: Recording, interfaces: Interfaces, sink: Box<dyn Sink>, homes: Vec<Sender<Share>>) -> Self {
        Self {
            recording,
            generation: 0,
            interfaces,
            facts: Vec::new(),
            sink,
            live: None,
            homes,
            waiting: BTreeMap::new(),
            next_order: 0,
            early: BTreeMap::new(),
            counts: RowCounts::default(),
        }
    }

    /// A recorder of a live run.
    pub fn live(
        recording: Recording,
        interfaces: Interfaces,
        sink: Box<dyn Sink>,
        homes: Vec<Sender<Share>>,
        live: Live,
    ) -> Self {
        Self { live: Some(live), ..Self::new(recording, interfaces, sink, homes) }
    }

    /// Tells that nothing is known of these interfaces from `start_secs` to `end_secs`, both within.
    ///
    /// # Errors
    /// As for [`Recorder::run`].
    pub fn write_gap(&mut self, interfaces: &[u16], start_secs: u64, end_secs: u64) -> Result<(), RecorderError> {
        self.meet_interfaces()?;
        for interface in interfaces {
            self.write_status(*interface, start_secs, end_secs, Record::skip_data)?;
        }
        self.counts.rows_skipdata += interfaces.len() as u64;
        Ok(self.sink.publish()?)
    }

    /// Writes what the workers hand over until they are done.
    ///
    /// # Errors
    /// What the sink could not write, or a policy that contradicts itself on an interface.
    pub fn run(&mut self, handovers: &Receiver<Handover>) -> Result<(), RecorderError> {
        for handover in handovers {
            match handover {
                Handover::Panicked => return Err(RecorderError::WorkerPanicked),
                Handover::Early { window, share } => {
                    let with_flows = self.write(window, vec![share])?;
                    self.early.entry(window.serial).or_default().extend(with_flows);
                }
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
        self.take_policy_counts();
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
            self.adopt(done.window.generation)?;
            let mut with_flows = self.write(done.window, done.shares)?;
            with_flows.extend(self.early.remove(&done.window.serial).unwrap_or_default());
            self.write_statuses(done.window, &with_flows, &done.losses)?;
            if !done.window.late {
                let window_end_secs = done.window.end_ns / NANOS_PER_SEC;
                self.sink.advance(window_end_secs.cast_signed())?;
                self.publish(window_end_secs)?;
            }
        }
        Ok(())
    }

    /// Goes over to the configuration of this generation. Late packets of an earlier one are written by the newest.
    fn adopt(&mut self, generation: u32) -> Result<(), RecorderError> {
        while self.generation < generation
            && let Some(change) = self.live.as_ref().and_then(|live| live.changes.try_recv().ok())
        {
            let Change { generation, recording, sink } = change;
            self.take_policy_counts();
            self.generation = generation;
            self.recording = recording;
            self.facts.clear();
            if let Some(sink) = sink {
                self.sink.finish()?;
                self.sink = sink;
            }
        }
        Ok(())
    }

    /// Lets others see what is written: a live run shall not lose it, nor keep it back until its file is full.
    fn publish(&mut self, until_secs: u64) -> Result<(), RecorderError> {
        if let Some(live) = &mut self.live {
            self.sink.publish()?;
            let files = self.sink.drain_published();
            let mut counts = self.counts.clone();
            counts.policy.add(&policy_counts(&self.recording));
            (live.published)(&Milestone { until_secs, files, counts: &counts });
        }
        Ok(())
    }

    fn take_policy_counts(&mut self) {
        self.counts.policy.add(&policy_counts(&self.recording));
    }

    /// Writes the flows of these shares, sends the tables home, and answers the interfaces that had flows.
    fn write(&mut self, window: Window, shares: Vec<Share>) -> Result<Vec<u16>, RecorderError> {
        let mut owners = Vec::with_capacity(shares.len());
        let mut tables = Vec::with_capacity(shares.len() + 1);
        for Share { worker, flows, table } in shares {
            owners.push((worker, flows));
            tables.push(table);
        }
        let packets_in: u64 = tables.iter().map(|table| table.packets).sum();
        let bytes_in: u64 = tables.iter().map(|table| table.bytes).sum();
        Merged::join_fragments(&mut tables, FlowTable::new(self.recording.rules.seed));
        let merged = Merged::new(&tables);
        let interfaces = merged.interfaces();
        let written = self.write_flows(window, &merged)?;
        if written.of_all_flows() != (packets_in, bytes_in) {
            self.counts.unbalanced += 1;
        }
        self.counts.add(&written);
        for (table, (worker, flows)) in tables.into_iter().zip(owners) {
            if let Some(home) = self.homes.get(worker) {
                // A worker that has finished needs its table no more.
                home.send(Share { worker, flows, table }).ok();
            }
        }
        Ok(interfaces)
    }

    /// Tells which interfaces lost something in a closed window, and which had nothing.
    fn write_statuses(&mut self, window: Window, with_flows: &[u16], losses: &[u16]) -> Result<(), RecorderError> {
        let start_secs = window.start_ns / NANOS_PER_SEC;
        let last_secs = window.end_ns.saturating_sub(1) / NANOS_PER_SEC;
        for interface in losses {
            self.write_status(*interface, start_secs, last_secs, Record::skip_data)?;
            self.counts.rows_skipdata += 1;
        }
        for interface in self.quiet(window, with_flows, losses) {
            self.write_status(interface, start_secs, last_secs, Record::no_data)?;
            self.counts.rows_nodata += 1;
        }
        Ok(())
    }

    /// The interfaces that were watched in a window of a live run, and neither had a flow nor lost anything.
    fn quiet(&self, window: Window, with_flows: &[u16], losses: &[u16]) -> Vec<u16> {
        let Some(live) = self.live.as_ref().filter(|_| !window.late) else { return Vec::new() };
        let mut watched = live.roster.watched(Timestamp(window.start_ns), Timestamp(window.end_ns));
        watched.retain(|interface| !with_flows.contains(interface) && !losses.contains(interface));
        watched
    }

    /// Writes the flows and says what became of them.
    fn write_flows(&mut self, window: Window, merged: &Merged<'_>) -> Result<RowCounts, RecorderError> {
        self.meet_interfaces()?;
        let Self { recording: Recording { rules, policy, .. }, facts, sink, live, .. } = self;
        let settled = policy.as_mut().map(|policy| {
            let mut observing = policy.begin_interval();
            let let_in = merged.flows().filter(|flow| flow.key.rejection.is_none() && flow.counts.packets > 0);
            for flow in let_in {
                if let Some(facts) = facts.get(usize::from(flow.key.interface)) {
                    observing.observe(&facts.view(&flow));
                }
            }
            observing.settle()
        });
        let drop_reasons = &live.as_ref().map(|live| live.drop_reasons.names()).unwrap_or_default();
        Pass { rules, facts, settled, drop_reasons, late: window.late }.write(merged, sink.as_mut())
    }

    /// Tells how an interface fared from one second to another, both within.
    fn write_status(
        &mut self,
        interface: u16,
        start_secs: u64,
        end_secs: u64,
        record: impl FnOnce(Arc<Metadata>, i64, i64) -> Record,
    ) -> Result<(), RecorderError> {
        self.meet_interfaces()?;
        let Some(facts) = self.facts.get(usize::from(interface)) else { return Ok(()) };
        let record = record(Arc::clone(&facts.metadata), start_secs.cast_signed(), end_secs.cast_signed());
        Ok(self.sink.write(&record)?)
    }

    /// Learns of the interfaces that have come up since the last window.
    fn meet_interfaces(&mut self) -> Result<(), PolicyError> {
        while let Ok(index) = u16::try_from(self.facts.len())
            && let Some(interface) = self.interfaces.get(index)
        {
            if let Some(policy) = &mut self.recording.policy {
                policy.bind(index, &interface.name)?;
            }
            self.facts.push((self.recording.describe)(&interface));
        }
        Ok(())
    }
}

/// What the policy in force could not judge or remember so far.
fn policy_counts(recording: &Recording) -> PolicyCounters {
    recording.policy.as_ref().map(Policy::counters).unwrap_or_default()
}
