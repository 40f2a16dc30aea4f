//! What a drain brings, put in the sensor's own terms: interfaces instead of devices, wall time, names of reasons.

use std::collections::HashMap;

use flowtap_abi::{Counts, Reason};

use super::clock::Anchor;
use super::drain::{Flow, Harvest, Verdict};
use super::route::{LOOPBACK, Ways};
use crate::capture::{
    Block, CaptureDrop, Counted, Direction, DropReason, Interface, Interfaces, Loss, Portless, Refused, Rejection,
};
use crate::packet::{Fault, NotIp};
use crate::time::{Rhythm, Timestamp};

/// Which interface a device of the kernel is here, and which reason a number is.
pub struct Devices {
    interfaces: Interfaces,
    attached: HashMap<u32, u16>,
    /// Devices that are gone, and the turns after which nothing of them can be left in the kernel.
    leaving: Vec<(u32, u32)>,
    reasons: HashMap<u32, DropReason>,
    /// Looked up since the last turn.
    ways: Ways,
    /// What has no interface: made when first needed.
    nowhere: Option<u16>,
}

impl Devices {
    /// None is attached. Each reason that drops are asked for comes with its number in the running kernel.
    pub fn new(interfaces: Interfaces, reasons: HashMap<u32, DropReason>) -> Self {
        let mut ways = Ways::default();
        ways.open();
        Self { interfaces, attached: HashMap::new(), leaving: Vec::new(), reasons, ways, nowhere: None }
    }

    pub(super) fn attach(&mut self, device: u32, interface: u16) {
        self.leaving.retain(|(left, _)| *left != device);
        self.attached.insert(device, interface);
    }

    /// Nothing more comes of this device; what is in the kernel still is its interface's.
    pub(super) fn detach(&mut self, device: u32) -> Option<u16> {
        let interface = self.attached.get(&device).copied()?;
        self.leaving.push((device, TURNS_TO_EMPTY));
        Some(interface)
    }

    /// To be called after each turn; answers the devices of which nothing is left.
    pub(super) fn turned(&mut self) -> Vec<u32> {
        self.ways.forget();
        self.leaving.iter_mut().for_each(|(_, turns)| *turns = turns.saturating_sub(1));
        let gone: Vec<u32> = self.leaving.extract_if(.., |(_, turns)| *turns == 0).map(|(device, _)| device).collect();
        gone.iter().for_each(|device| {
            self.attached.remove(device);
        });
        gone
    }

    fn of_device(&self, device: u32) -> Option<u16> {
        self.attached.get(&device).copied()
    }

    /// The interface of a dropped packet: where the kernel names none, the one that its route leads to. `None` where that
    /// is none of ours.
    fn of_verdict(&mut self, flow: &Flow) -> Option<u16> {
        let is_stand_in = flow.interface == LOOPBACK && flow.direction == Direction::Egress;
        if flow.interface != 0 && !is_stand_in {
            return self.of_device(flow.interface);
        }
        match self.ways.device(flow.addresses) {
            Some(device) => self.of_device(device),
            None => self.nowhere(),
        }
    }

    /// The interface that stands for none, whose id is `-`.
    fn nowhere(&mut self) -> Option<u16> {
        if self.nowhere.is_none() {
            self.nowhere = self.interfaces.intern(Interface { name: NOWHERE.to_owned(), capture: String::new() });
        }
        self.nowhere
    }
}

/// After the turn during which a device went, its counts may be in either generation; two turns empty both.
const TURNS_TO_EMPTY: u32 = 2;

/// The id of what has no interface.
const NOWHERE: &str = "-";

/// Puts what a drain brings into a block.
pub(super) struct Gatherer<'a> {
    block: &'a mut Block,
    devices: &'a mut Devices,
    anchor: &'a Anchor,
    rhythm: &'a Rhythm,
    /// Nothing was counted before this.
    from: Timestamp,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(
        block: &'a mut Block,
        devices: &'a mut Devices,
        anchor: &'a Anchor,
        rhythm: &'a Rhythm,
        from: Timestamp,
    ) -> Self {
        Self { block, devices, anchor, rhythm, from }
    }

    fn gather(&mut self, interface: u16, flow: &Flow, counts: &Counts, rejection: Option<Rejection>) {
        // The anchor follows the wall clock between counting and draining, by less than a step.
        let first = self.anchor.wall(counts.first_ns);
        let first = if self.from.0.saturating_sub(first.0) < super::STEP_NS { first.max(self.from) } else { first };
        let (_, interval_end_ns) = self.rhythm.interval(first);
        let last = self.anchor.wall(counts.last_ns).clamp(first, Timestamp(interval_end_ns - 1));
        self.block.counted.push(Counted {
            interface,
            direction: flow.direction,
            addresses: flow.addresses,
            protocol: flow.protocol,
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            packets: counts.packets,
            bytes: counts.bytes,
            first,
            last,
            marks: counts.marks,
            rejection,
        });
    }

    fn lose(&mut self, device: u32, loss: Loss, packets: u64) {
        let interface = self.devices.of_device(device).or_else(|| self.devices.nowhere());
        if let Some(interface) = interface {
            self.block.drops.push(CaptureDrop { interface, time: self.from, packets, loss });
        }
    }
}

impl Harvest for Gatherer<'_> {
    fn flow(&mut self, flow: &Flow, counts: &Counts) {
        match self.devices.of_device(flow.interface) {
            Some(interface) => self.gather(interface, flow, counts, None),
            None => self.lose(flow.interface, Loss::FlowMap, counts.packets),
        }
    }

    fn verdict(&mut self, verdict: &Verdict, counts: &Counts) {
        // A number that nobody asked for was asked for before a reload.
        let Some(reason) = self.devices.reasons.get(&verdict.reason).copied() else { return };
        if let Some(interface) = self.devices.of_verdict(&verdict.flow) {
            let rejection = Rejection { reason, was_counted: verdict.counted };
            self.gather(interface, &verdict.flow, counts, Some(rejection));
        }
    }

    fn apart(&mut self, device: u32, reason: Reason, more: u64) {
        let refusal = match reason {
            Reason::Arp => NotIp::Arp.into(),
            Reason::NonIp => NotIp::Other.into(),
            Reason::Truncated => Fault::TruncatedIp.into(),
            Reason::IpVersion => Fault::IpVersion.into(),
            Reason::HeaderLength => Fault::HeaderLength.into(),
            Reason::TotalLength => Fault::TotalLength.into(),
            Reason::ExtensionBound => return self.block.portless.push((Portless::ExtensionBound, more)),
            Reason::FragmentUnknown => return self.block.portless.push((Portless::FragmentUnknown, more)),
            Reason::FlowLost => return self.lose(device, Loss::FlowMap, more),
            Reason::VerdictLost => return self.lose(device, Loss::VerdictMap, more),
            Reason::NotGathered => return self.lose(device, Loss::Headers, more),
            Reason::OwnCopy => {
                self.block.own_copies += more;
                return;
            }
        };
        self.block.refused.push(Refused { refusal, frames: more });
    }
}
