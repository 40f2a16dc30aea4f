//! One finished flow-log line, as a type.
//!
//! Authority: the AWS page "Flow log records" (versions 2 to 11 without 6, which is Transit Gateway's), and our own
//! `x-` fields. A [`Record`] is complete when built: what is `None` in it is written as `-` (text), null (JSON, and
//! integers in Parquet). Which of its values a file shows is the business of the [`crate::format::Format`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::metadata::Metadata;

/// One row of a flow log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What is known of the interface without looking at a packet. Many records share one.
    pub metadata: Arc<Metadata>,
    /// `start`: Unix seconds of the first packet in the interval (of the interval itself for NODATA and SKIPDATA).
    pub start_secs: Option<i64>,
    /// `end`: Unix seconds of the last packet in the interval (of the interval itself for NODATA and SKIPDATA).
    pub end_secs: Option<i64>,
    /// `log-status`. `None` only in a record read from a format that lacks the field.
    pub status: Option<LogStatus>,
    /// Everything that comes from packets. All `None` for NODATA and SKIPDATA.
    pub flow: Flow,
}

impl Record {
    /// A row for one flow (`log-status` OK).
    pub fn ok(metadata: Arc<Metadata>, start_secs: i64, end_secs: i64, flow: Flow) -> Self {
        Self { metadata, start_secs: Some(start_secs), end_secs: Some(end_secs), status: Some(LogStatus::Ok), flow }
    }

    /// The row of an interface that saw no traffic in the interval `start_secs..=end_secs`.
    pub fn no_data(metadata: Arc<Metadata>, start_secs: i64, end_secs: i64) -> Self {
        Self::without_flow(metadata, start_secs, end_secs, LogStatus::NoData)
    }

    /// The row that tells that an interface's interval is missing packets or records.
    pub fn skip_data(metadata: Arc<Metadata>, start_secs: i64, end_secs: i64) -> Self {
        Self::without_flow(metadata, start_secs, end_secs, LogStatus::SkipData)
    }

    fn without_flow(metadata: Arc<Metadata>, start_secs: i64, end_secs: i64, status: LogStatus) -> Self {
        let flow = Flow::default();
        Self { metadata, start_secs: Some(start_secs), end_secs: Some(end_secs), status: Some(status), flow }
    }
}

/// What a row says about packets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flow {
    /// `srcaddr`
    pub srcaddr: Option<IpAddr>,
    /// `dstaddr`
    pub dstaddr: Option<IpAddr>,
    /// `pkt-srcaddr`
    pub pkt_srcaddr: Option<IpAddr>,
    /// `pkt-dstaddr`
    pub pkt_dstaddr: Option<IpAddr>,
    /// `srcport`; 0 for ICMP.
    pub srcport: Option<u16>,
    /// `dstport`; 0 for ICMP.
    pub dstport: Option<u16>,
    /// `protocol`: IANA number.
    pub protocol: Option<u8>,
    /// `packets`
    pub packets: Option<u64>,
    /// `bytes`: sum of IP total lengths.
    pub bytes: Option<u64>,
    /// `action`
    pub action: Option<Action>,
    /// `tcp-flags`: AWS's mask (FIN 1, SYN 2, RST 4, SYN-ACK 18), 0 for what is not TCP.
    pub tcp_flags: Option<u8>,
    /// `type`
    pub traffic_type: Option<TrafficType>,
    /// `flow-direction`, as the interface sees it.
    pub direction: Option<FlowDirection>,
    /// `traffic-path`: 1 to 8, egress only.
    pub traffic_path: Option<u8>,
    /// `pkt-src-aws-service`
    pub pkt_src_aws_service: Option<Arc<str>>,
    /// `pkt-dst-aws-service`
    pub pkt_dst_aws_service: Option<Arc<str>>,
    /// `reject-reason`: `BPA` or `EC`.
    pub reject_reason: Option<Arc<str>>,
    /// `encryption-status`: 0 to 3.
    pub encryption_status: Option<u8>,
    /// `x-traffic-class`: one of the classes AWS skips, else `None`.
    pub traffic_class: Option<TrafficClass>,
    /// `x-drop-reason`: the kernel's name of the reason, for REJECT rows.
    pub drop_reason: Option<Arc<str>>,
    /// `x-community-id`: Community ID version 1, seed 0, with its `1:`.
    pub community_id: Option<Box<str>>,
    /// `x-tcp-flags-raw`: OR of the TCP flag bytes as they were on the wire.
    pub tcp_flags_raw: Option<u8>,
    /// `x-icmp-type`; `None` when the row holds more than one.
    pub icmp_type: Option<u8>,
    /// `x-icmp-code`; `None` when the row holds more than one.
    pub icmp_code: Option<u8>,
    /// `x-vlan`: identifier of the outermost VLAN tag; `None` when mixed or untagged.
    pub vlan: Option<u16>,
    /// `x-ether-src`; `None` when mixed or unknown.
    pub ether_src: Option<EtherAddr>,
    /// `x-ether-dst`; `None` when mixed or unknown.
    pub ether_dst: Option<EtherAddr>,
    /// `x-first-ns`: nanoseconds since the Unix epoch of the first packet.
    pub first_ns: Option<i64>,
    /// `x-last-ns`: nanoseconds since the Unix epoch of the last packet.
    pub last_ns: Option<i64>,
}

/// `action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The traffic was let through.
    Accept,
    /// The traffic was turned away by policy.
    Reject,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 2] = [Self::Accept, Self::Reject];

    /// The word that stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
        }
    }

    /// The action that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// `log-status`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStatus {
    /// A normal row.
    Ok,
    /// No traffic in the interval.
    NoData,
    /// Something was lost in the interval.
    SkipData,
}

impl LogStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Ok, Self::NoData, Self::SkipData];

    /// The word that stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NoData => "NODATA",
            Self::SkipData => "SKIPDATA",
        }
    }

    /// The status that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// `type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficType {
    /// Internet Protocol version 4.
    Ipv4,
    /// Internet Protocol version 6.
    Ipv6,
    /// Elastic Fabric Adapter; read, never made here.
    Efa,
}

impl TrafficType {
    /// Every type of traffic.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Efa];

    /// The word that stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Efa => "EFA",
        }
    }

    /// The type of traffic that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// `flow-direction`: from the interface's point of view, not from who opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowDirection {
    /// Towards the interface's host.
    Ingress,
    /// Away from the interface's host.
    Egress,
}

impl FlowDirection {
    /// Every direction.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The word that stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The direction that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// `x-traffic-class`: the traffic that AWS's flow logs leave out, first match wins in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficClass {
    /// The cloud's own resolver; other DNS is ordinary traffic.
    Dns,
    /// DHCP and DHCPv6.
    Dhcp,
    /// Instance metadata.
    Metadata,
    /// The cloud's time service.
    Time,
    /// Windows licence activation.
    Activation,
    /// The reserved address of the default router.
    Router,
    /// Mirrored copies, our own or others'.
    Mirror,
}

impl TrafficClass {
    /// Every traffic class.
    pub const ALL: [Self; 7] =
        [Self::Dns, Self::Dhcp, Self::Metadata, Self::Time, Self::Activation, Self::Router, Self::Mirror];

    /// The word that stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Dhcp => "dhcp",
            Self::Metadata => "metadata",
            Self::Time => "time",
            Self::Activation => "activation",
            Self::Router => "router",
            Self::Mirror => "mirror",
        }
    }

    /// The traffic class that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// An Ethernet address, six octets as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherAddr(pub [u8; 6]);

impl EtherAddr {
    /// Reads six pairs of hexadecimal digits separated by colons.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Self(octets))
    }
}

impl fmt::Display for EtherAddr {
    /// `0a:1b:2c:3d:4e:5f`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_lower_case_pairs() {
        let addr = EtherAddr([0x0a, 0x1b, 0, 0xff, 0x4e, 0x05]);
        assert_eq!(addr.to_string(), "0a:1b:00:ff:4e:05");
        assert_eq!(EtherAddr::from_text("0A:1b:00:FF:4e:05"), Some(addr));
        for wrong in ["", "0a:1b:00:ff:4e", "0a:1b:00:ff:4e:05:00", "0a:1b:00:ff:4e:5", "0a:1b:00:ff:4e:+5"] {
            assert_eq!(EtherAddr::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn words_lead_back() {
        assert!(Action::ALL.into_iter().all(|known| Action::from_word(known.as_str()) == Some(known)));
        assert!(LogStatus::ALL.into_iter().all(|known| LogStatus::from_word(known.as_str()) == Some(known)));
        assert!(TrafficType::ALL.into_iter().all(|known| TrafficType::from_word(known.as_str()) == Some(known)));
        assert!(FlowDirection::ALL.into_iter().all(|known| FlowDirection::from_word(known.as_str()) == Some(known)));
        assert!(TrafficClass::ALL.into_iter().all(|known| TrafficClass::from_word(known.as_str()) == Some(known)));
        assert_eq!(Action::from_word("accept"), None);
    }
}
