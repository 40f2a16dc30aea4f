//! From the flows of a closed window to records in a sink.
//!
//! The recorder waits for every worker's share of a window, merges them, asks the policy for verdicts, and writes a
//! record a flow, in the order of keys; then a SKIPDATA record for each interface that lost something. At the end of
//! each window it checks that the rows sum to the packets that were put in.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use flowlog::community_id::community_id;
use flowlog::metadata::Metadata;
use flowlog::record::{Action, EtherAddr, Flow, FlowDirection, Record, TrafficClass, TrafficType};
use flowlog::sink::{Sink, SinkError};

use crate::capture::{Direction, Interface, Interfaces};
use crate::classify::{Classifier, LocalNetworks};
use crate::flow::FlowTable;
use crate::flow::interval::Window;
use crate::flow::merge::{FinishedFlow, Merged};
use crate::ledger::{Omission, RowCounts};
use crate::policy::{FlowView, Policy, Settled};
use crate::time::Timestamp;
use crate::worker::{Handover, Share};

/// What the recorder needs to know beside the flows.
pub struct Rules {
    /// The aggregation interval.
    pub interval_secs: u32,
    /// Which classes AWS skips.
    pub classifier: Classifier,
    /// Which addresses are the interface's side.
    pub local: LocalNetworks,
    /// Security groups and network ACLs. Without them everything captured is ACCEPT.
    pub policy: Option<Policy>,
    /// Classes whose flows get no record.
    pub omitted_classes: Vec<TrafficClass>,
    /// The action whose flows get no record.
    pub omitted_action: Option<Action>,
    /// Whether the format asks for the Community ID, which costs more than the rest of a record.
    pub with_community_id: bool,
    /// Seed for the tables of fragments.
    pub seed: u64,
}

/// Gives an interface its metadata.
pub type Describe = Box<dyn Fn(&Interface) -> Arc<Metadata> + Send>;

/// Turns shares of windows into records.
pub struct Recorder {
    rules: Rules,
    interfaces: Interfaces,
    describe: Describe,
    /// Metadata by interface, as far as met.
    metadata: Vec<Option<Arc<Metadata>>>,
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
    /// A recorder that gives each worker's tables back through `homes`, one sender a worker.
    pub fn new(
        rules: Rules,
        interfaces: Interfaces,
        describe: Describe,
        sink: Box<dyn Sink>,
        homes: Vec<Sender<Share>>,
    ) -> Self {
        Self {
            rules,
            interfaces,
            describe,
            metadata: Vec::new(),
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
    /// What the sink could not write.
    pub fn run(&mut self, handovers: &Receiver<Handover>) -> Result<(), SinkError> {
        for handover in handovers {
            match handover {
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
        self.counts.unjudged = self.rules.policy.as_ref().map_or(0, Policy::unjudged);
        (self.counts, self.sink)
    }

    /// Writes the windows that are complete, in the order in which they closed.
    fn write_complete(&mut self) -> Result<(), SinkError> {
        while self.waiting.get(&self.next_order).is_some_and(|gathering| gathering.missing == 0) {
            let Some(mut done) = self.waiting.remove(&self.next_order) else { break };
            self.next_order += 1;
            done.losses.sort_unstable();
            done.losses.dedup();
            self.write(done.window, done.shares, &done.losses)?;
        }
        Ok(())
    }

    fn write(&mut self, window: Window, shares: Vec<Share>, losses: &[u16]) -> Result<(), SinkError> {
        let mut owners = Vec::with_capacity(shares.len());
        let mut tables = Vec::with_capacity(shares.len() + 1);
        for Share { worker, flows, table } in shares {
            owners.push((worker, flows));
            tables.push(table);
        }
        let packets_in: u64 = tables.iter().map(|table| table.packets).sum();
        let bytes_in: u64 = tables.iter().map(|table| table.bytes).sum();
        Merged::join_fragments(&mut tables, FlowTable::new(self.rules.seed));
        let (packets_out, bytes_out) = self.write_flows(window, &Merged::new(&tables))?;
        if (packets_in, bytes_in) != (packets_out, bytes_out) {
            self.counts.unbalanced += 1;
        }
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

    /// Writes the flows and answers the packets and bytes in them, written or left out.
    fn write_flows(&mut self, window: Window, merged: &Merged<'_>) -> Result<(u64, u64), SinkError> {
        if let Some(policy) = &mut self.rules.policy {
            policy.begin_interval();
            for flow in merged.flows() {
                let (direction, class) = (direction(&flow, &self.rules.local), class(&flow, &self.rules.classifier));
                policy.observe(&view(&flow, direction, class));
            }
        }
        let (mut packets, mut bytes, mut flows) = (0, 0, 0);
        let mut current: Option<(u16, Record)> = None;
        for flow in merged.flows() {
            flows += 1;
            packets += flow.counts.packets;
            bytes += flow.counts.bytes;
            let interface = flow.key.interface;
            let record = match &mut current {
                Some((known, record)) if *known == interface => record,
                other => &mut other.insert((interface, self.blank_record(interface))).1,
            };
            if let Some(omission) = self.fill(record, &flow) {
                self.counts.omitted.count(omission, flow.counts.packets);
                continue;
            }
            self.sink.write(record)?;
            self.counts.rows += 1;
            self.counts.rows_rejected += u64::from(record.flow.action == Some(Action::Reject));
            self.counts.rows_late += u64::from(window.late);
            self.counts.packets += flow.counts.packets;
            self.counts.bytes += flow.counts.bytes;
        }
        self.counts.flows += flows;
        self.counts.intervals += u64::from(flows > 0 && !window.late);
        Ok((packets, bytes))
    }

    /// Makes `record` this flow's, or says why the flow gets none.
    fn fill(&mut self, record: &mut Record, flow: &FinishedFlow) -> Option<Omission> {
        let rules = &mut self.rules;
        let direction = direction(flow, &rules.local);
        let class = class(flow, &rules.classifier);
        if let Some(class) = class.filter(|class| rules.omitted_classes.contains(class)) {
            return Some(Omission::Class(class));
        }
        let verdict = rules.policy.as_mut().map_or(Verdict::Accept, |policy| policy.verdict(&view(flow, direction, class)));
        let action = match verdict {
            Verdict::Accept => Action::Accept,
            Verdict::Reject => Action::Reject,
        };
        if rules.omitted_action == Some(action) {
            return Some(Omission::Action(action));
        }
        let (key, counts) = (&flow.key, &flow.counts);
        let detail = flow.detail.unwrap_or_default();
        let (icmp_type, icmp_code) = (detail.icmp_type.shared(), detail.icmp_code.shared());
        record.start_secs = Some((counts.first_ns / NANOS_PER_SEC).cast_signed());
        record.end_secs = Some((counts.last_ns / NANOS_PER_SEC).cast_signed());
        record.flow = Flow {
            srcaddr: Some(key.src),
            dstaddr: Some(key.dst),
            pkt_srcaddr: Some(key.src),
            pkt_dstaddr: Some(key.dst),
            srcport: Some(key.ports.src),
            dstport: Some(key.ports.dst),
            protocol: Some(key.ports.protocol),
            packets: Some(counts.packets),
            bytes: Some(counts.bytes),
            action: Some(action),
            tcp_flags: Some(counts.flags_aws),
            traffic_type: Some(if key.src.is_ipv4() { TrafficType::Ipv4 } else { TrafficType::Ipv6 }),
            direction: match direction {
                Direction::Ingress => Some(FlowDirection::Ingress),
                Direction::Egress => Some(FlowDirection::Egress),
                Direction::Unknown => None,
            },
            traffic_class: class,
            community_id: rules.with_community_id.then(|| {
                let icmp = icmp_type.zip(icmp_code);
                community_id(key.src, key.dst, key.ports.protocol, key.ports.src, key.ports.dst, icmp).into()
            }),
            tcp_flags_raw: Some(counts.flags_raw),
            icmp_type,
            icmp_code,
            vlan: detail.vlan.shared(),
            ether_src: detail.ether_src.shared().map(EtherAddr),
            ether_dst: detail.ether_dst.shared().map(EtherAddr),
            first_ns: Some(counts.first_ns.cast_signed()),
            last_ns: Some(counts.last_ns.cast_signed()),
            ..Flow::default()
        };
        None
    }

    /// Tells that an interface's interval is missing packets.
    fn write_skipdata(&mut self, window: Window, interface: u16) -> Result<(), SinkError> {
        let start_secs = (window.start_ns / NANOS_PER_SEC).cast_signed();
        let end_secs = start_secs + i64::from(self.rules.interval_secs) - 1;
        let metadata = self.metadata(interface);
        self.sink.write(&Record::skip_data(metadata, start_secs, end_secs))?;
        self.counts.rows_skipdata += 1;
        Ok(())
    }

    fn blank_record(&mut self, interface: u16) -> Record {
        Record::ok(self.metadata(interface), 0, 0, Flow::default())
    }

    fn metadata(&mut self, interface: u16) -> Arc<Metadata> {
        let at = usize::from(interface);
        if self.metadata.len() <= at {
            self.metadata.resize(at + 1, None);
        }
        if let Some(Some(known)) = self.metadata.get(at) {
            return Arc::clone(known);
        }
        let described = self.interfaces.get(interface).unwrap_or_default();
        if let Some(policy) = &mut self.rules.policy {
            policy.bind(interface, &described.name);
        }
        let metadata = (self.describe)(&described);
        if let Some(slot) = self.metadata.get_mut(at) {
            *slot = Some(Arc::clone(&metadata));
        }
        metadata
    }
}

/// What the capture says, else what the local networks say.
fn direction(flow: &FinishedFlow, local: &LocalNetworks) -> Direction {
    match flow.key.direction {
        Direction::Unknown => local.direction(flow.key.src, flow.key.dst),
        known => known,
    }
}

fn class(flow: &FinishedFlow, classifier: &Classifier) -> Option<TrafficClass> {
    let key = &flow.key;
    classifier.class(key.src, key.dst, key.ports.src, key.ports.dst, key.ports.protocol)
}

fn view(flow: &FinishedFlow, direction: Direction, class: Option<TrafficClass>) -> FlowView {
    let key = &flow.key;
    FlowView {
        interface: key.interface,
        direction,
        src: key.src,
        dst: key.dst,
        src_port: key.ports.src,
        dst_port: key.ports.dst,
        protocol: key.ports.protocol,
        class,
        first: Timestamp(flow.counts.first_ns),
        last: Timestamp(flow.counts.last_ns),
    }
}
