//! Golden lines are typed from AWS's pages, never printed by the code under test.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::examples::{EXAMPLES, formats, lines_of, records, shown};
use crate::record::{Action, EtherAddr, Flow, FlowDirection, LogStatus, TrafficClass, TrafficType};

fn read(text: &str, format: Option<&str>) -> Vec<Result<Record, TextError>> {
    let format = format.map(|format| format.parse().unwrap());
    TextReader::new(text.as_bytes(), format).unwrap().collect()
}

fn complaint(text: &str, format: Option<&str>) -> String {
    match TextReader::new(text.as_bytes(), format.map(|format| format.parse().unwrap())) {
        Ok(mut reader) => reader.find_map(Result::err).unwrap().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_example_of_aws_is_read_and_written_unchanged() {
    for example in EXAMPLES {
        let records = example.records();
        assert_eq!(records.len(), example.lines.len());
        let expected: String = example.lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(lines_of(&example.format(), &records), expected);
    }
}

#[test]
fn an_example_means_what_it_says() {
    let line = EXAMPLES[3].lines[1];
    let record = read(line, Some(EXAMPLES[3].format)).remove(0).unwrap();
    assert_eq!(record.metadata.get(Field::AccountId), Some("123456789012"));
    assert_eq!(record.metadata.get(Field::AzId), Some("apse2-az3"));
    assert_eq!(record.metadata.get(Field::SublocationId), None);
    assert_eq!((record.start_secs, record.end_secs), (Some(1616729292), Some(1616729349)));
    assert_eq!(record.status, Some(LogStatus::Ok));
    let flow = Flow {
        srcaddr: Some("10.0.0.71".parse().unwrap()),
        dstaddr: Some("52.95.128.179".parse().unwrap()),
        pkt_srcaddr: Some("10.0.0.71".parse().unwrap()),
        pkt_dstaddr: Some("52.95.128.179".parse().unwrap()),
        srcport: Some(34210),
        dstport: Some(80),
        protocol: Some(6),
        packets: Some(7),
        bytes: Some(471),
        action: Some(Action::Accept),
        tcp_flags: Some(3),
        traffic_type: Some(TrafficType::Ipv4),
        direction: Some(FlowDirection::Egress),
        traffic_path: Some(8),
        pkt_dst_aws_service: Some("S3".into()),
        ..Flow::default()
    };
    assert_eq!(record.flow, flow);
}

#[test]
fn the_stray_double_space_of_the_documentation_is_read() {
    let printed = EXAMPLES[1].lines[5].replace("43638 10.0.0.62", "43638  10.0.0.62");
    assert!(printed.contains("  "));
    let records = read(&format!("{printed}\r\n\r\n  \n{printed}"), Some(EXAMPLES[1].format));
    for record in &records {
        assert_eq!(record.as_ref().unwrap(), &EXAMPLES[1].records()[5]);
    }
    assert_eq!(records.len(), 2);
}

#[test]
fn a_row_without_traffic_keeps_its_metadata_and_window() {
    let mut metadata = Metadata::default();
    metadata.set(Field::InterfaceId, "eth0").unwrap();
    metadata.set(Field::VpcId, "vpc-1").unwrap();
    let metadata = Arc::new(metadata);
    let format = "v3".parse().unwrap();
    let no_data = Record::no_data(Arc::clone(&metadata), 1431280876, 1431280934);
    let skip_data = Record::skip_data(metadata, 1431280876, 1431280934);
    assert_eq!(
        lines_of(&format, &[no_data, skip_data]),
        "3 unknown eth0 - - - - - - - 1431280876 1431280934 - NODATA vpc-1 - - - - - -\n\
         3 unknown eth0 - - - - - - - 1431280876 1431280934 - SKIPDATA vpc-1 - - - - - -\n"
    );
}

#[test]
fn our_own_fields_are_written() {
    let format = "x-traffic-class x-drop-reason x-community-id x-tcp-flags-raw x-icmp-type x-icmp-code x-vlan \
                  x-ether-src x-ether-dst x-first-ns x-last-ns x-interface version";
    let mut metadata = Metadata::default();
    metadata.set(Field::XInterface, "eth0").unwrap();
    let flow = Flow {
        traffic_class: Some(TrafficClass::Dns),
        drop_reason: Some("NETFILTER_DROP".into()),
        community_id: Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".into()),
        tcp_flags_raw: Some(27),
        icmp_type: Some(8),
        icmp_code: Some(0),
        vlan: Some(4094),
        ether_src: Some(EtherAddr([2, 0, 0, 0, 0, 1])),
        ether_dst: Some(EtherAddr([0xff; 6])),
        first_ns: Some(1_418_530_010_000_000_001),
        last_ns: Some(-1),
        ..Flow::default()
    };
    let record = Record::ok(Arc::new(metadata), 0, 0, flow);
    assert_eq!(
        lines_of(&format.parse().unwrap(), &[record]),
        "dns NETFILTER_DROP 1:LQU9qZlK+B5F3KDmev6m5PMibrg= 27 8 0 4094 02:00:00:00:00:01 ff:ff:ff:ff:ff:ff \
         1418530010000000001 -1 eth0 2\n"
    );
}

#[test]
fn addresses_are_written_as_rfc_5952_says() {
    let format = "srcaddr dstaddr".parse().unwrap();
    let line = |src: &str, dst: &str| {
        let flow = Flow { srcaddr: Some(src.parse().unwrap()), dstaddr: Some(dst.parse().unwrap()), ..Flow::default() };
        lines_of(&format, &[Record::ok(Arc::new(Metadata::default()), 0, 0, flow)])
    };
    assert_eq!(line("2001:DB8:0:0:1:0:0:1", "::"), "2001:db8::1:0:0:1 ::\n");
    assert_eq!(line("2001:db8:0:1:1:1:1:1", "::ffff:192.0.2.1"), "2001:db8:0:1:1:1:1:1 ::ffff:192.0.2.1\n");
    assert_eq!(line("0.0.0.0", "255.255.255.255"), "0.0.0.0 255.255.255.255\n");
    assert_eq!(line("10.100.9.99", "199.1.20.0"), "10.100.9.99 199.1.20.0\n");
}

#[test]
fn every_octet_is_spelled_as_the_standard_library_does() {
    for octet in 0..=255 {
        let addr = Ipv4Addr::new(octet, 255 - octet, octet, 255 - octet);
        let mut out = Vec::new();
        push_dotted_quad(addr, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{addr} "));
    }
}

fn integer(number: i64) -> String {
    let mut out = Vec::new();
    push_integer(number, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn integers_are_spelled_as_the_standard_library_does() {
    let mut power = 1_i64;
    for _ in 0..19 {
        for number in [power - 1, power, power + 1, -power, power.wrapping_mul(9)] {
            assert_eq!(integer(number), format!("{number} "));
        }
        power = power.wrapping_mul(10);
    }
    for number in (0..=10_000).chain([i64::MAX, i64::MIN, 1_000_000_007, 12_003_000_450]) {
        assert_eq!(integer(number), format!("{number} "));
    }
}

#[test]
fn a_value_that_would_break_the_line_is_escaped() {
    let flow = Flow { drop_reason: Some("two words\n".into()), reject_reason: Some("".into()), ..Flow::default() };
    let record = Record::ok(Arc::new(Metadata::default()), 0, 0, flow);
    let format = "x-drop-reason reject-reason".parse().unwrap();
    assert_eq!(lines_of(&format, &[record]), "two%20words%0A -\n");
}

#[test]
fn records_of_different_interfaces_do_not_mix() {
    let mut other = Metadata::default();
    other.set(Field::AccountId, "42").unwrap();
    let one = Record::no_data(Arc::new(Metadata::default()), 1, 2);
    let two = Record::no_data(Arc::new(other), 3, 4);
    let format = "account-id start version".parse().unwrap();
    assert_eq!(lines_of(&format, &[one.clone(), two, one]), "unknown 1 2\n42 3 2\nunknown 1 2\n");
}

#[test]
fn a_header_decides_the_format() {
    let text = "flow-direction traffic-path srcaddr dstaddr srcport dstport encryption-status\n\
                ingress - 10.0.133.8 10.0.128.55 43236 80 1\n";
    let reader = TextReader::new(text.as_bytes(), None).unwrap();
    assert_eq!(reader.format().fields().len(), 7);
    assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), EXAMPLES[4].records()[..1]);
    // It beats a format that was given, and without either the lines are version 2's.
    assert_eq!(read(text, Some("v5")).len(), 1);
    assert!(read(EXAMPLES[0].lines[0], None)[0].is_ok());
    assert!(read("", None).is_empty());
}

#[test]
fn the_header_is_the_bare_names() {
    let mut out = Vec::new();
    TextEncoder::new(&"${version} ${log-status}".parse().unwrap()).encode_header(&mut out);
    assert_eq!(out, b"version log-status\n");
}

#[test]
fn errors_name_line_field_and_value() {
    let good = EXAMPLES[0].lines[0];
    let bad = good.replace("20641", "70000");
    assert_eq!(complaint(&format!("{good}\n{bad}"), None), "line 2: `70000` is not a value of srcport");
    assert_eq!(complaint("1 2 3", Some("v2")), "line 1 has 3 columns; the format has 14");
    assert_eq!(complaint(&format!("{good} x"), None), "line 1 has 15 columns; the format has 14");
    assert_eq!(complaint(&good.replace("ACCEPT", "MAYBE"), None), "line 1: `MAYBE` is not a value of action");
    assert_eq!(complaint(&good.replace("172.31.16.21", "::g"), None), "line 1: `::g` is not a value of dstaddr");
    let header = complaint("version tgw-id srcaddr", None);
    assert_eq!(header, "line 1, the header: no field is called `tgw-id`");
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    assert_eq!(complaint(&format!("{good}\n{long}"), None), "line 2 is longer than 262144 bytes");
    let mut bytes = TextReader::new(&b"2 \xff"[..], Some("v2".parse().unwrap()));
    assert_eq!(bytes.as_mut().err().unwrap().to_string(), "line 1 is not text");
}

#[test]
fn a_bad_line_does_not_leak_into_the_next() {
    let good = EXAMPLES[0].lines[2];
    let bad = EXAMPLES[0].lines[0].replace(" OK", " GOOD");
    let records = read(&format!("{bad}\n{good}"), None);
    assert!(records[0].is_err());
    assert_eq!(records[1].as_ref().unwrap(), &EXAMPLES[0].records()[2]);
}

#[test]
fn rows_of_one_interface_share_their_metadata() {
    let records = EXAMPLES[0].records();
    assert!(Arc::ptr_eq(&records[0].metadata, &records[1].metadata));
    assert!(!Arc::ptr_eq(&records[0].metadata, &records[3].metadata));
}

proptest! {
    #[test]
    fn any_integer_is_spelled_as_the_standard_library_does(number: i64) {
        prop_assert_eq!(integer(number), format!("{number} "));
    }

    #[test]
    fn what_is_written_is_read(records in records(), format in formats()) {
        let text = lines_of(&format, &records);
        prop_assert_eq!(text.lines().count(), records.len());
        let read: Vec<Record> =
            TextReader::new(text.as_bytes(), Some(format.clone())).unwrap().map(Result::unwrap).collect();
        let expected: Vec<Record> = records.iter().map(|record| shown(record, &format)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&bytes);
    }

    #[test]
    fn any_columns_are_read_or_refused(columns in proptest::collection::vec("[-0-9A-Z:.a-f]{1,6}|OK|-", 14..16)) {
        fuzz(format!("{}\n{}", Format::default().header_line(), columns.join(" ")).as_bytes());
    }
}
