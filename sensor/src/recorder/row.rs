//! One finished flow as the values of a record.

use std::sync::Arc;

use flowlog::community_id::community_id;
use flowlog::record::{Action, EtherAddr, Flow, FlowDirection, Record, TrafficType};

use super::{InterfaceFacts, Rules};
use crate::capture::{Direction, DropReasonNames};
use crate::flow::merge::FinishedFlow;
use crate::ledger::Omission;
use crate::policy::{FlowView, Settled};
use crate::time::{NANOS_PER_SEC, Timestamp};

impl InterfaceFacts {
    /// A record of this interface, to be filled.
    pub(super) fn blank_record(&self) -> Record {
        Record::ok(Arc::clone(&self.metadata), 0, 0, Flow::default())
    }

    /// The flow with what the interface's networks say of it.
    pub(super) fn view(&self, flow: &FinishedFlow) -> FlowView {
        let (key, ports) = (&flow.key, flow.key.ports);
        FlowView {
            interface: key.interface,
            direction: match key.direction {
                Direction::Unknown => self.local.direction(key.src, key.dst),
                known => known,
            },
            src: key.src,
            dst: key.dst,
            src_port: ports.src,
            dst_port: ports.dst,
            protocol: ports.protocol,
            class: self.classifier.class(key.src, key.dst, ports.src, ports.dst, ports.protocol),
            first: Timestamp(flow.counts.first_ns),
            last: Timestamp(flow.counts.last_ns),
        }
    }
}

impl InterfaceFacts {
    /// Puts the stand-in where AWS has the interface's primary address, whichever address the packet had: to where it
    /// came in, and from where it went out. Its other side stays, and so does IPv6.
    pub(super) fn stand_in(&self, flow: &mut Flow) {
        let Some(stand_in) = self.stand_in else { return };
        let own_side = match flow.direction {
            Some(FlowDirection::Ingress) => &mut flow.dstaddr,
            Some(FlowDirection::Egress) => &mut flow.srcaddr,
            None => return,
        };
        if own_side.is_some_and(|address| address.is_ipv4()) {
            *own_side = Some(stand_in.into());
        }
    }
}

impl Rules {
    /// Makes `record` this flow's, or says why the flow gets none.
    pub(super) fn fill(
        &self,
        record: &mut Record,
        flow: &FinishedFlow,
        view: &FlowView,
        settled: Option<Settled<'_>>,
        drop_reasons: &DropReasonNames,
    ) -> Option<Omission> {
        if let Some(class) = view.class.filter(|class| self.skipped_traffic.omits(*class)) {
            return Some(Omission::Class(class));
        }
        let action = match flow.key.rejection {
            Some(_) => Action::Reject,
            None => settled.map_or(Action::Accept, |policy| policy.verdict(view)),
        };
        if !self.traffic.includes(action) {
            return Some(Omission::Action(action));
        }
        record.start_secs = Some((flow.counts.first_ns / NANOS_PER_SEC).cast_signed());
        record.end_secs = Some((flow.counts.last_ns / NANOS_PER_SEC).cast_signed());
        record.flow = self.values(flow, view, action);
        record.flow.drop_reason = flow.key.rejection.and_then(|reason| drop_reasons.get(reason));
        None
    }

    fn values(&self, flow: &FinishedFlow, view: &FlowView, action: Action) -> Flow {
        let (counts, detail) = (&flow.counts, flow.detail.unwrap_or_default());
        let (icmp_type, icmp_code) = (detail.icmp_type.shared(), detail.icmp_code.shared());
        let community_id = || {
            let (first, second) = match view.protocol {
                ICMP | ICMPV6 => (icmp_type?.into(), icmp_code?.into()),
                _ => (view.src_port, view.dst_port),
            };
            Some(community_id(view.src, view.dst, view.protocol, first, second).into())
        };
        Flow {
            srcaddr: Some(view.src),
            dstaddr: Some(view.dst),
            pkt_srcaddr: Some(view.src),
            pkt_dstaddr: Some(view.dst),
            srcport: Some(view.src_port),
            dstport: Some(view.dst_port),
            protocol: Some(view.protocol),
            packets: Some(counts.packets),
            bytes: Some(counts.bytes),
            action: Some(action),
            tcp_flags: Some(counts.flags_aws),
            traffic_type: Some(if view.src.is_ipv4() { TrafficType::Ipv4 } else { TrafficType::Ipv6 }),
            direction: match view.direction {
                Direction::Ingress => Some(FlowDirection::Ingress),
                Direction::Egress => Some(FlowDirection::Egress),
                Direction::Unknown => None,
            },
            traffic_class: view.class,
            community_id: self.with_community_id.then(community_id).flatten(),
            tcp_flags_raw: Some(counts.flags_raw),
            icmp_type,
            icmp_code,
            vlan: detail.vlan.shared(),
            ether_src: detail.ether_src.shared().map(EtherAddr),
            ether_dst: detail.ether_dst.shared().map(EtherAddr),
            first_ns: Some(signed_ns(counts.first_ns)),
            last_ns: Some(signed_ns(counts.last_ns)),
            ..Flow::default()
        }
    }
}

/// Nanoseconds as a field holds them. Wild time stamps from 2262 on stop at the last that it can hold.
fn signed_ns(time_ns: u64) -> i64 {
    i64::try_from(time_ns).unwrap_or(i64::MAX)
}

/// Protocols whose type and code stand for ports in a Community ID.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Classifier, LocalNetworks};
    use std::net::IpAddr;

    #[test]
    fn aws_has_the_primary_address_for_the_interfaces_own_side() {
        let facts = InterfaceFacts {
            metadata: Arc::default(),
            classifier: Classifier::new(&[], &[]),
            local: LocalNetworks::new(&[]),
            stand_in: Some([10, 0, 1, 5].into()),
        };
        let shown = |direction, src: &str, dst: &str| {
            let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
            let mut flow = Flow {
                direction,
                srcaddr: address(src),
                dstaddr: address(dst),
                pkt_srcaddr: address(src),
                pkt_dstaddr: address(dst),
                ..Flow::default()
            };
            facts.stand_in(&mut flow);
            let packet = [flow.pkt_srcaddr, flow.pkt_dstaddr];
            assert_eq!(packet, [address(src), address(dst)], "what the packet has stays");
            [flow.srcaddr, flow.dstaddr].map(|address| address.unwrap().to_string())
        };
        // The specification's cases: a secondary address, a pod behind the interface, and what is neither.
        let ingress = Some(FlowDirection::Ingress);
        assert_eq!(shown(ingress, "192.0.2.1", "10.0.1.6"), ["192.0.2.1", "10.0.1.5"]);
        assert_eq!(shown(ingress, "10.0.1.6", "100.64.0.9"), ["10.0.1.6", "10.0.1.5"]);
        assert_eq!(shown(Some(FlowDirection::Egress), "100.64.0.9", "192.0.2.1"), ["10.0.1.5", "192.0.2.1"]);
        assert_eq!(shown(None, "10.0.1.6", "192.0.2.1"), ["10.0.1.6", "192.0.2.1"]);
        assert_eq!(shown(ingress, "2001:db8::1", "2001:db8::2"), ["2001:db8::1", "2001:db8::2"]);
    }

    #[test]
    fn a_wild_time_is_never_before_the_epoch() {
        assert_eq!(signed_ns(1_700_000_000_000_000_000), 1_700_000_000_000_000_000);
        assert_eq!(signed_ns(1 << 63), i64::MAX);
        assert_eq!(signed_ns(u64::MAX), i64::MAX);
    }
}
