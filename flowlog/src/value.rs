//! Record <-> single values: the one place that knows which member of a [`Record`] belongs to which [`Field`].
//!
//! Every encoder asks [`value`]; every reader fills a [`Draft`]. `version` belongs to the format, not to the record.

use std::net::IpAddr;
use std::sync::Arc;

use crate::field::{ColumnType, Field};
use crate::metadata::{ABSENT, Metadata};
use crate::record::{Action, EtherAddr, Flow, FlowDirection, LogStatus, Record, TrafficClass, TrafficType};

/// What a record has in one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Not known, not applicable, or (for `version`) not the record's to say.
    Absent,
    /// Any integer.
    Int(i64),
    /// A value known to hold neither separators nor control characters.
    Word(&'a str),
    /// A value of unknown origin: an encoder that cannot quote must look at it.
    Open(&'a str),
    /// An IP address.
    Addr(IpAddr),
    /// An Ethernet address.
    Ether(EtherAddr),
}

/// The value of `field` in `record`. Counts beyond `i64::MAX` (which no interface can reach) stop there.
#[inline]
pub(crate) fn value(record: &Record, field: Field) -> Value<'_> {
    let flow = &record.flow;
    match field {
        Field::Version => Value::Absent,
        Field::Srcaddr => addr(flow.srcaddr),
        Field::Dstaddr => addr(flow.dstaddr),
        Field::Srcport => int(flow.srcport),
        Field::Dstport => int(flow.dstport),
        Field::Protocol => int(flow.protocol),
        Field::Packets => count(flow.packets),
        Field::Bytes => count(flow.bytes),
        Field::Start => int(record.start_secs),
        Field::End => int(record.end_secs),
        Field::Action => word(flow.action.map(Action::as_str)),
        Field::LogStatus => word(record.status.map(LogStatus::as_str)),
        Field::TcpFlags => int(flow.tcp_flags),
        Field::Type => word(flow.traffic_type.map(TrafficType::as_str)),
        Field::PktSrcaddr => addr(flow.pkt_srcaddr),
        Field::PktDstaddr => addr(flow.pkt_dstaddr),
        Field::PktSrcAwsService => open(flow.pkt_src_aws_service.as_deref()),
        Field::PktDstAwsService => open(flow.pkt_dst_aws_service.as_deref()),
        Field::FlowDirection => word(flow.direction.map(FlowDirection::as_str)),
        Field::TrafficPath => int(flow.traffic_path),
        Field::RejectReason => open(flow.reject_reason.as_deref()),
        Field::EncryptionStatus => int(flow.encryption_status),
        Field::XTrafficClass => word(flow.traffic_class.map(TrafficClass::as_str)),
        Field::XDropReason => open(flow.drop_reason.as_deref()),
        Field::XCommunityId => open(flow.community_id.as_deref()),
        Field::XTcpFlagsRaw => int(flow.tcp_flags_raw),
        Field::XIcmpType => int(flow.icmp_type),
        Field::XIcmpCode => int(flow.icmp_code),
        Field::XVlan => int(flow.vlan),
        Field::XEtherSrc => flow.ether_src.map_or(Value::Absent, Value::Ether),
        Field::XEtherDst => flow.ether_dst.map_or(Value::Absent, Value::Ether),
        Field::XFirstNs => int(flow.first_ns),
        Field::XLastNs => int(flow.last_ns),
        metadata => word(record.metadata.get(metadata)),
    }
}

fn addr<'a>(addr: Option<IpAddr>) -> Value<'a> {
    addr.map_or(Value::Absent, Value::Addr)
}

fn int<'a, T: Into<i64>>(number: Option<T>) -> Value<'a> {
    number.map_or(Value::Absent, |number| Value::Int(number.into()))
}

fn count<'a>(number: Option<u64>) -> Value<'a> {
    number.map_or(Value::Absent, |number| Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn word(word: Option<&str>) -> Value<'_> {
    word.map_or(Value::Absent, Value::Word)
}

fn open(text: Option<&str>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::Absent, Value::Open)
}

/// A record that is being read, one value after the other.
///
/// Most rows of a file repeat their metadata, so a draft goes on with the last row's and copies it only when a row
/// says something else.
#[derive(Debug)]
pub(crate) struct Draft {
    metadata: Arc<Metadata>,
    start_secs: Option<i64>,
    end_secs: Option<i64>,
    status: Option<LogStatus>,
    flow: Flow,
}

impl Draft {
    /// Nothing read yet.
    pub(crate) fn new() -> Self {
        let metadata = Arc::new(Metadata::empty());
        Self { metadata, start_secs: None, end_secs: None, status: None, flow: Flow::default() }
    }

    /// The record as read so far; the draft is ready for the next row of the same fields.
    pub(crate) fn take(&mut self) -> Record {
        Record {
            metadata: Arc::clone(&self.metadata),
            start_secs: self.start_secs.take(),
            end_secs: self.end_secs.take(),
            status: self.status.take(),
            flow: std::mem::take(&mut self.flow),
        }
    }

    /// Reads `text` as the value of `field`; `-` is the absence of one. `None` when it is not a value of that field.
    pub(crate) fn put_text(&mut self, field: Field, text: &str) -> Option<()> {
        if text == ABSENT {
            return self.put_absent(field);
        }
        if field.column_type() != ColumnType::Str {
            return self.put_int(field, text.parse().ok()?);
        }
        let flow = &mut self.flow;
        match field {
            Field::Srcaddr => flow.srcaddr = Some(text.parse().ok()?),
            Field::Dstaddr => flow.dstaddr = Some(text.parse().ok()?),
            Field::PktSrcaddr => flow.pkt_srcaddr = Some(text.parse().ok()?),
            Field::PktDstaddr => flow.pkt_dstaddr = Some(text.parse().ok()?),
            Field::Action => flow.action = Some(Action::from_word(text)?),
            Field::LogStatus => self.status = Some(LogStatus::from_word(text)?),
            Field::Type => flow.traffic_type = Some(TrafficType::from_word(text)?),
            Field::FlowDirection => flow.direction = Some(FlowDirection::from_word(text)?),
            Field::PktSrcAwsService => flow.pkt_src_aws_service = Some(token(text)?.into()),
            Field::PktDstAwsService => flow.pkt_dst_aws_service = Some(token(text)?.into()),
            Field::RejectReason => flow.reject_reason = Some(token(text)?.into()),
            Field::XTrafficClass => flow.traffic_class = Some(TrafficClass::from_word(text)?),
            Field::XDropReason => flow.drop_reason = Some(token(text)?.into()),
            Field::XCommunityId => flow.community_id = Some(token(text)?.into()),
            Field::XEtherSrc => flow.ether_src = Some(EtherAddr::from_text(text)?),
            Field::XEtherDst => flow.ether_dst = Some(EtherAddr::from_text(text)?),
            metadata => {
                if self.metadata.get(metadata) != Some(text) {
                    Arc::make_mut(&mut self.metadata).set_as_written(metadata, text).ok()?;
                }
            }
        }
        Some(())
    }

    /// Takes `number` as the value of `field`. `None` when it is out of that field's range.
    pub(crate) fn put_int(&mut self, field: Field, number: i64) -> Option<()> {
        let flow = &mut self.flow;
        match field {
            // The version follows from the format and is not kept; a file may say what it likes.
            Field::Version => drop(u8::try_from(number).ok()?),
            Field::Srcport => flow.srcport = Some(number.try_into().ok()?),
            Field::Dstport => flow.dstport = Some(number.try_into().ok()?),
            Field::Protocol => flow.protocol = Some(number.try_into().ok()?),
            Field::Packets => flow.packets = Some(number.try_into().ok()?),
            Field::Bytes => flow.bytes = Some(number.try_into().ok()?),
            Field::Start => self.start_secs = Some(number),
            Field::End => self.end_secs = Some(number),
            Field::TcpFlags => flow.tcp_flags = Some(number.try_into().ok()?),
            Field::TrafficPath => flow.traffic_path = Some(number.try_into().ok()?),
            Field::EncryptionStatus => flow.encryption_status = Some(number.try_into().ok()?),
            Field::XTcpFlagsRaw => flow.tcp_flags_raw = Some(number.try_into().ok()?),
            Field::XIcmpType => flow.icmp_type = Some(number.try_into().ok()?),
            Field::XIcmpCode => flow.icmp_code = Some(number.try_into().ok()?),
            Field::XVlan => flow.vlan = Some(number.try_into().ok()?),
            Field::XFirstNs => flow.first_ns = Some(number),
            Field::XLastNs => flow.last_ns = Some(number),
            _ => return None,
        }
        Some(())
    }

    /// Notes that the row has no value for `field`.
    pub(crate) fn put_absent(&mut self, field: Field) -> Option<()> {
        // What comes from packets is absent until put; metadata is remembered from the row before.
        if self.metadata.get(field).is_some() {
            Arc::make_mut(&mut self.metadata).set_as_written(field, ABSENT).ok()?;
        }
        Some(())
    }
}

/// `text` when it can stand in a line.
fn token(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())).then_some(text)
}
