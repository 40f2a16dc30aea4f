//! For tests: the example records that AWS's pages print, and arbitrary records and formats for properties.

use std::sync::Arc;

use proptest::prelude::*;

use crate::field::Field;
use crate::format::Format;
use crate::metadata::Metadata;
use crate::record::{Action, EtherAddr, Flow, FlowDirection, LogStatus, Record, TrafficClass, TrafficType};
use crate::text::{TextEncoder, TextReader};

/// A format and lines that AWS prints for it.
pub(crate) struct Example {
    pub(crate) format: &'static str,
    pub(crate) lines: &'static [&'static str],
}

impl Example {
    pub(crate) fn format(&self) -> Format {
        self.format.parse().unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let text = self.lines.join("\n");
        TextReader::new(text.as_bytes(), Some(self.format())).unwrap().map(Result::unwrap).collect()
    }
}

/// "Flow log record examples" in the VPC user guide, and (the last) "VPC encryption controls".
pub(crate) const EXAMPLES: [Example; 5] = [
    Example {
        format: "v2",
        lines: &[
            "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK",
            "2 123456789010 eni-1235b8ca123456789 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK",
            "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA",
            "2 123456789010 eni-11111111aaaaaaaaa - - - - - - - 1431280876 1431280934 - SKIPDATA",
            "2 123456789010 eni-1235b8ca123456789 203.0.113.12 172.31.16.139 0 0 1 4 336 1432917027 1432917142 ACCEPT OK",
            "2 123456789010 eni-1235b8ca123456789 172.31.16.139 203.0.113.12 0 0 1 4 336 1432917094 1432917142 REJECT OK",
            "2 123456789010 eni-1235b8ca123456789 2001:db8:1234:a100:8d6e:3477:df66:f105 2001:db8:1234:a102:3304:8879:34cf:4071 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK",
            "2 9xxx eni-xxx 123.45.67.89 172.31.44.17 0 0 1 2 120 1554186843 1554186883 ACCEPT OK",
            "2 9xxx eni-xxx 172.31.44.17 123.45.67.89 0 0 1 1 60 1554186843 1554186883 ACCEPT OK",
            "2 9xxx eni-xxx 172.31.44.17 123.45.67.89 0 0 1 1 60 1554186843 1554186883 REJECT OK",
        ],
    },
    Example {
        format: "version vpc-id subnet-id instance-id interface-id account-id type srcaddr dstaddr srcport dstport \
                 pkt-srcaddr pkt-dstaddr protocol bytes packets start end action tcp-flags log-status",
        lines: &[
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 52.213.180.42 10.0.0.62 43416 5001 52.213.180.42 10.0.0.62 6 568 8 1566848875 1566848933 ACCEPT 2 OK",
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 10.0.0.62 52.213.180.42 5001 43416 10.0.0.62 52.213.180.42 6 376 7 1566848875 1566848933 ACCEPT 18 OK",
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 10.0.0.62 52.213.180.42 5001 43418 10.0.0.62 52.213.180.42 6 63388 1219 1566848933 1566849113 ACCEPT 1 OK",
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 52.213.180.42 10.0.0.62 43418 5001 52.213.180.42 10.0.0.62 6 23294588 15774 1566848933 1566849113 ACCEPT 1 OK",
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 52.213.180.42 10.0.0.62 43638 5001 52.213.180.42 10.0.0.62 6 1260 17 1566933133 1566933193 ACCEPT 3 OK",
            "3 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-01234567890123456 eni-1235b8ca123456789 123456789010 IPv4 10.0.0.62 52.213.180.42 5001 43638 10.0.0.62 52.213.180.42 6 967 14 1566933133 1566933193 ACCEPT 19 OK",
        ],
    },
    Example {
        format: "instance-id interface-id srcaddr dstaddr pkt-srcaddr pkt-dstaddr",
        lines: &[
            "- eni-1235b8ca123456789 10.0.1.5 10.0.0.220 10.0.1.5 203.0.113.5",
            "- eni-1235b8ca123456789 10.0.0.220 203.0.113.5 10.0.0.220 203.0.113.5",
            "- eni-1235b8ca123456789 203.0.113.5 10.0.0.220 203.0.113.5 10.0.0.220",
            "- eni-1235b8ca123456789 10.0.0.220 10.0.1.5 203.0.113.5 10.0.1.5",
        ],
    },
    Example {
        format: "version srcaddr dstaddr srcport dstport protocol start end type packets bytes account-id vpc-id \
                 subnet-id instance-id interface-id region az-id sublocation-type sublocation-id action tcp-flags \
                 pkt-srcaddr pkt-dstaddr pkt-src-aws-service pkt-dst-aws-service traffic-path flow-direction log-status",
        lines: &[
            "5 52.95.128.179 10.0.0.71 80 34210 6 1616729292 1616729349 IPv4 14 15044 123456789012 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-0c50d5961bcb2d47b eni-1235b8ca123456789 ap-southeast-2 apse2-az3 - - ACCEPT 19 52.95.128.179 10.0.0.71 S3 - - ingress OK",
            "5 10.0.0.71 52.95.128.179 34210 80 6 1616729292 1616729349 IPv4 7 471 123456789012 vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-0c50d5961bcb2d47b eni-1235b8ca123456789 ap-southeast-2 apse2-az3 - - ACCEPT 3 10.0.0.71 52.95.128.179 - S3 8 egress OK",
        ],
    },
    Example {
        format: "flow-direction traffic-path srcaddr dstaddr srcport dstport encryption-status",
        lines: &["ingress - 10.0.133.8 10.0.128.55 43236 80 1", "egress 1 10.0.128.55 10.0.133.8 80 43236 1"],
    },
];

/// The lines of `records`.
pub(crate) fn lines_of(format: &Format, records: &[Record]) -> String {
    let mut encoder = TextEncoder::new(format);
    let mut out = Vec::new();
    for record in records {
        encoder.encode(record, &mut out);
    }
    String::from_utf8(out).unwrap()
}

/// `record` as a file of `format` can tell it: what the format does not show is not known.
pub(crate) fn shown(record: &Record, format: &Format) -> Record {
    let mut metadata = Metadata::empty();
    for &field in format.fields() {
        if let Some(value) = record.metadata.get(field) {
            metadata.set_as_written(field, value).unwrap();
        }
    }
    let flow = record.flow.clone();
    Record {
        metadata: Arc::new(metadata),
        start_secs: record.start_secs.filter(|_| format.contains(Field::Start)),
        end_secs: record.end_secs.filter(|_| format.contains(Field::End)),
        status: record.status.filter(|_| format.contains(Field::LogStatus)),
        flow: Flow {
            srcaddr: flow.srcaddr.filter(|_| format.contains(Field::Srcaddr)),
            dstaddr: flow.dstaddr.filter(|_| format.contains(Field::Dstaddr)),
            pkt_srcaddr: flow.pkt_srcaddr.filter(|_| format.contains(Field::PktSrcaddr)),
            pkt_dstaddr: flow.pkt_dstaddr.filter(|_| format.contains(Field::PktDstaddr)),
            srcport: flow.srcport.filter(|_| format.contains(Field::Srcport)),
            dstport: flow.dstport.filter(|_| format.contains(Field::Dstport)),
            protocol: flow.protocol.filter(|_| format.contains(Field::Protocol)),
            packets: flow.packets.filter(|_| format.contains(Field::Packets)),
            bytes: flow.bytes.filter(|_| format.contains(Field::Bytes)),
            action: flow.action.filter(|_| format.contains(Field::Action)),
            tcp_flags: flow.tcp_flags.filter(|_| format.contains(Field::TcpFlags)),
            traffic_type: flow.traffic_type.filter(|_| format.contains(Field::Type)),
            direction: flow.direction.filter(|_| format.contains(Field::FlowDirection)),
            traffic_path: flow.traffic_path.filter(|_| format.contains(Field::TrafficPath)),
            pkt_src_aws_service: flow.pkt_src_aws_service.filter(|_| format.contains(Field::PktSrcAwsService)),
            pkt_dst_aws_service: flow.pkt_dst_aws_service.filter(|_| format.contains(Field::PktDstAwsService)),
            reject_reason: flow.reject_reason.filter(|_| format.contains(Field::RejectReason)),
            encryption_status: flow.encryption_status.filter(|_| format.contains(Field::EncryptionStatus)),
            traffic_class: flow.traffic_class.filter(|_| format.contains(Field::XTrafficClass)),
            drop_reason: flow.drop_reason.filter(|_| format.contains(Field::XDropReason)),
            community_id: flow.community_id.filter(|_| format.contains(Field::XCommunityId)),
            tcp_flags_raw: flow.tcp_flags_raw.filter(|_| format.contains(Field::XTcpFlagsRaw)),
            icmp_type: flow.icmp_type.filter(|_| format.contains(Field::XIcmpType)),
            icmp_code: flow.icmp_code.filter(|_| format.contains(Field::XIcmpCode)),
            vlan: flow.vlan.filter(|_| format.contains(Field::XVlan)),
            ether_src: flow.ether_src.filter(|_| format.contains(Field::XEtherSrc)),
            ether_dst: flow.ether_dst.filter(|_| format.contains(Field::XEtherDst)),
            first_ns: flow.first_ns.filter(|_| format.contains(Field::XFirstNs)),
            last_ns: flow.last_ns.filter(|_| format.contains(Field::XLastNs)),
        },
    }
}

/// Any format.
pub(crate) fn formats() -> impl Strategy<Value = Format> {
    proptest::sample::subsequence(Field::ALL.to_vec(), 1..=Field::COUNT).prop_shuffle().prop_map(|fields| {
        let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
        names.join(" ").parse().unwrap()
    })
}

/// Any few records, of one or two interfaces.
pub(crate) fn records() -> impl Strategy<Value = Vec<Record>> {
    let row = (0..2_usize, option(any::<i64>()), option(any::<i64>()), option(any_of(&LogStatus::ALL)), flows());
    (metadata(), metadata(), proptest::collection::vec(row, 0..8)).prop_map(|(first, second, rows)| {
        let interfaces = [Arc::new(first), Arc::new(second)];
        let record = |(interface, start_secs, end_secs, status, flow): (usize, _, _, _, _)| Record {
            metadata: Arc::clone(&interfaces[interface]),
            start_secs,
            end_secs,
            status,
            flow,
        };
        rows.into_iter().map(record).collect()
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let fields: Vec<Field> = Field::ALL.into_iter().filter(|field| field.is_metadata()).collect();
    let values = proptest::collection::vec(option("[!-~é]{1,12}"), fields.len());
    values.prop_map(move |values| {
        let mut metadata = Metadata::default();
        for (&field, value) in fields.iter().zip(values) {
            metadata.set(field, value.unwrap_or("-".into())).unwrap();
        }
        metadata
    })
}

fn flows() -> impl Strategy<Value = Flow> {
    let addresses = (
        option(any::<std::net::IpAddr>()),
        option(any::<std::net::IpAddr>()),
        option(any::<std::net::IpAddr>()),
        option(any::<std::net::IpAddr>()),
        option(any::<[u8; 6]>().prop_map(EtherAddr)),
        option(any::<[u8; 6]>().prop_map(EtherAddr)),
    );
    let numbers = (
        option(any::<u16>()),
        option(any::<u16>()),
        option(any::<u8>()),
        option(0..=i64::MAX as u64),
        option(0..=i64::MAX as u64),
        option(any::<u8>()),
        option(any::<u8>()),
        option(any::<u8>()),
        option(any::<u16>()),
        option(any::<i64>()),
        option(any::<i64>()),
    );
    let words = (
        option(any_of(&Action::ALL)),
        option(any_of(&TrafficType::ALL)),
        option(any_of(&FlowDirection::ALL)),
        option(any_of(&TrafficClass::ALL)),
        option("[A-Z][A-Z0-9_]{0,12}"),
        option("[A-Z][A-Z0-9_]{0,12}"),
        option("1:[A-Za-z0-9+/]{27}="),
    );
    (addresses, numbers, words).prop_map(|(addresses, numbers, words)| Flow {
        srcaddr: addresses.0,
        dstaddr: addresses.1,
        pkt_srcaddr: addresses.2,
        pkt_dstaddr: addresses.3,
        srcport: numbers.0,
        dstport: numbers.1,
        protocol: numbers.2,
        packets: numbers.3,
        bytes: numbers.4,
        action: words.0,
        tcp_flags: numbers.5,
        traffic_type: words.1,
        direction: words.2,
        traffic_path: numbers.6,
        pkt_src_aws_service: words.4.clone().map(Arc::from),
        pkt_dst_aws_service: words.5.clone().map(Arc::from),
        reject_reason: words.5.map(Arc::from),
        encryption_status: numbers.7,
        traffic_class: words.3,
        drop_reason: words.4.map(Arc::from),
        community_id: words.6.map(Box::from),
        tcp_flags_raw: numbers.5,
        icmp_type: numbers.6,
        icmp_code: numbers.7,
        vlan: numbers.8,
        ether_src: addresses.4,
        ether_dst: addresses.5,
        first_ns: numbers.9,
        last_ns: numbers.10,
    })
}

fn option<S: Strategy>(value: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::of(value)
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}
