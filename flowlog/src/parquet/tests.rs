//! What is written is read back by the same library here; other libraries read it in the end-to-end tests.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;
use crate::examples::{EXAMPLES, formats, records, shown};
use crate::field::{ColumnType, Field};
use crate::format::Format;
use crate::metadata::Metadata;
use crate::record::{Flow, Record};

fn file_of(format: &Format, records: &[Record]) -> Bytes {
    let mut encoder = ParquetEncoder::new(Vec::new(), format, ParquetCodec::Gzip).unwrap();
    for record in records {
        encoder.write(record).unwrap();
    }
    encoder.finish().unwrap().into()
}

fn read(file: Bytes) -> Vec<Record> {
    ParquetReader::new(file).unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_example_of_aws_comes_back() {
    for example in EXAMPLES {
        let (format, records) = (example.format(), example.records());
        let file = file_of(&format, &records);
        let reader = ParquetReader::new(file.clone()).unwrap();
        assert_eq!(reader.format(), &format);
        assert_eq!(read(file), records);
    }
}

#[test]
fn the_schema_is_aws_s() {
    let format: Format = "full".parse().unwrap();
    let file = SerializedFileReader::new(file_of(&format, &EXAMPLES[0].records())).unwrap();
    let metadata = file.metadata();
    let columns = metadata.file_metadata().schema_descr().columns();
    assert_eq!(columns.len(), Field::COUNT);
    for (field, column) in Field::ALL.into_iter().zip(columns) {
        assert_eq!(column.name(), field.name().replace('-', "_"));
        assert_eq!(column.self_type().get_basic_info().repetition(), Repetition::OPTIONAL);
        let expected = match field.column_type() {
            ColumnType::Str => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnType::Int32 => (PhysicalType::INT32, None),
            ColumnType::Int64 => (PhysicalType::INT64, None),
        };
        assert_eq!((column.physical_type(), column.logical_type_ref().cloned()), expected, "{field}");
    }
    let chunk = metadata.row_group(0).column(0);
    assert!(matches!(chunk.compression(), Compression::GZIP(_)));
    assert!(chunk.statistics().is_some() && chunk.dictionary_page_offset().is_some());
    assert!(metadata.file_metadata().created_by().is_some_and(|by| by.starts_with("flowtap version ")));
}

#[test]
fn absent_strings_are_hyphens_and_absent_integers_null() {
    let no_data = Record::no_data(Arc::new(Metadata::default()), 1431280876, 1431280934);
    let file = file_of(&"srcaddr srcport packets version end vpc-id".parse().unwrap(), &[no_data]);
    let file = SerializedFileReader::new(file).unwrap();
    let row = file.get_row_iter(None).unwrap().next().unwrap().unwrap();
    assert_eq!(row.get_string(0).unwrap(), "-");
    assert!(row.get_int(1).is_err() && row.get_long(2).is_err());
    assert_eq!((row.get_int(3).unwrap(), row.get_long(4).unwrap()), (3, 1431280934));
    assert_eq!(row.get_string(5).unwrap(), "-");
}

#[test]
fn row_groups_are_bounded() {
    let metadata = Arc::new(Metadata::default());
    let format: Format = "start interface-id".parse().unwrap();
    let mut encoder = ParquetEncoder::new(Vec::new(), &format, ParquetCodec::Zstd).unwrap();
    let row_count = ROW_GROUP_ROWS_MAX + 10;
    for second in 0..row_count {
        encoder.write(&Record::no_data(Arc::clone(&metadata), second as i64, 0)).unwrap();
    }
    let promised = encoder.size_bytes_max();
    let file: Bytes = encoder.finish().unwrap().into();
    assert!(file.len() as u64 <= promised, "{} > {promised}", file.len());
    let metadata = SerializedFileReader::new(file.clone()).unwrap().metadata().clone();
    assert_eq!(metadata.num_row_groups(), 2);
    assert_eq!(metadata.row_group(0).num_rows(), ROW_GROUP_ROWS_MAX as i64);
    let starts: Vec<i64> = read(file).into_iter().map(|record| record.start_secs.unwrap()).collect();
    assert_eq!(starts, (0..row_count as i64).collect::<Vec<_>>());
}

/// A file as somebody else would write it: other widths, REQUIRED columns, null strings.
fn foreign_file(schema: &str) -> Bytes {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
    let mut row_group = file.next_row_group().unwrap();
    while let Some(mut column) = row_group.next_column().unwrap() {
        let levels = |descriptor: &parquet::schema::types::ColumnDescPtr, present| {
            (descriptor.max_def_level() > 0).then(|| vec![i16::from(present); 1])
        };
        match column.untyped() {
            parquet::column::writer::ColumnWriter::Int32ColumnWriter(writer) => {
                let levels = levels(writer.get_descriptor(), true);
                writer.write_batch(&[17], levels.as_deref(), None).unwrap();
            }
            parquet::column::writer::ColumnWriter::Int64ColumnWriter(writer) => {
                let levels = levels(writer.get_descriptor(), true);
                writer.write_batch(&[17], levels.as_deref(), None).unwrap();
            }
            parquet::column::writer::ColumnWriter::ByteArrayColumnWriter(writer) => {
                let is_optional = writer.get_descriptor().max_def_level() > 0;
                let levels = levels(writer.get_descriptor(), false);
                let values = if is_optional { vec![] } else { vec![ByteArray::from("eth0")] };
                writer.write_batch(&values, levels.as_deref(), None).unwrap();
            }
            _ => panic!("not a column of a flow log"),
        }
        column.close().unwrap();
    }
    row_group.close().unwrap();
    file.into_inner().unwrap().into()
}

#[test]
fn other_widths_required_columns_and_null_strings_are_read() {
    let file = foreign_file(
        "message other { required int64 protocol; optional int32 packets; optional binary srcaddr (STRING); \
         required binary interface_id (UTF8); }",
    );
    let record = read(file).remove(0);
    assert_eq!(record.flow, Flow { protocol: Some(17), packets: Some(17), ..Flow::default() });
    assert_eq!(record.metadata.get(Field::InterfaceId), Some("eth0"));
}

#[test]
fn columns_that_are_not_ours_are_refused_by_name() {
    let refused = |schema: &str| ParquetReader::new(foreign_file(schema)).err().unwrap().to_string();
    assert_eq!(refused("message m { optional int32 tgw_id; }"), "no field has the column `tgw_id`");
    assert_eq!(
        refused("message m { optional int32 srcaddr; }"),
        "the column of srcaddr has the type INT32, or is nested"
    );
    assert_eq!(
        refused("message m { optional group flow { optional int32 srcport; } }"),
        "the column of srcport has the type INT32, or is nested"
    );
    assert!(ParquetReader::new(Bytes::from_static(b"PAR1 not really PAR1")).is_err());
}

#[test]
fn a_value_out_of_range_costs_its_row_only() {
    let schema = Arc::new(parse_message_type("message m { required int32 srcport; required binary type; }").unwrap());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
    let mut row_group = file.next_row_group().unwrap();
    let mut ports = row_group.next_column().unwrap().unwrap();
    ports.typed::<Int32Type>().write_batch(&[1, 65536, 3], None, None).unwrap();
    ports.close().unwrap();
    let mut types = row_group.next_column().unwrap().unwrap();
    types.typed::<ByteArrayType>().write_batch(&["IPv4", "IPv6", "IPv4"].map(ByteArray::from), None, None).unwrap();
    types.close().unwrap();
    row_group.close().unwrap();
    let rows: Vec<_> = ParquetReader::new(Bytes::from(file.into_inner().unwrap())).unwrap().collect();
    let ports: Vec<_> = rows.iter().map(|row| row.as_ref().ok().and_then(|record| record.flow.srcport)).collect();
    assert_eq!(ports, [Some(1), None, Some(3)]);
    assert_eq!(rows[1].as_ref().unwrap_err().to_string(), "row 2 has a value that is not one of srcport");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(records in records(), format in formats()) {
        let expected: Vec<Record> = records.iter().map(|record| shown(record, &format)).collect();
        prop_assert_eq!(read(file_of(&format, &records)), expected);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        fuzz(&bytes);
        fuzz(&[&b"PAR1"[..], &bytes, b"PAR1"].concat());
    }
}

/// Deterministic damage: every byte of small files, one at a time, replaced by values that mean something in Parquet.
fn damage(file: &[u8]) {
    for index in 0..file.len() {
        for value in [0, 1, 2, 0x15, 0x7f, 0x80, 0xff, file[index] ^ 1, file[index].wrapping_add(1)] {
            let mut damaged = file.to_vec();
            damaged[index] = value;
            fuzz(&damaged);
        }
    }
}

#[test]
fn a_damaged_file_is_read_or_refused() {
    let format: Format = "version interface-id srcaddr srcport packets start log-status".parse().unwrap();
    for codec in [ParquetCodec::None, ParquetCodec::Gzip, ParquetCodec::Zstd] {
        let mut encoder = ParquetEncoder::new(Vec::new(), &format, codec).unwrap();
        EXAMPLES[0].records().iter().for_each(|record| encoder.write(record).unwrap());
        damage(&encoder.finish().unwrap());
    }
}

#[test]
fn damage_inside_uncompressed_pages_is_read_or_refused() {
    let schema = "message m { optional binary srcaddr (STRING); optional int64 bytes; required binary action; \
                  required int32 srcport; }";
    for has_dictionary in [true, false] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let properties = WriterProperties::builder().set_dictionary_enabled(has_dictionary);
            // Version 2 would choose delta encodings, which we do not read.
            let properties = properties.set_writer_version(version).set_encoding(Encoding::PLAIN).build();
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
            let mut row_group = file.next_row_group().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            let addresses = ["10.0.0.1", "::1", "10.0.0.1"].map(ByteArray::from);
            column.typed::<ByteArrayType>().write_batch(&addresses, Some(&[1, 0, 1, 1]), None).unwrap();
            column.close().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[40, 1500], Some(&[0, 1, 0, 1]), None).unwrap();
            column.close().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            let actions = ["ACCEPT", "REJECT", "ACCEPT", "-"].map(ByteArray::from);
            column.typed::<ByteArrayType>().write_batch(&actions, None, None).unwrap();
            column.close().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<Int32Type>().write_batch(&[1, 2, 3, 4], None, None).unwrap();
            column.close().unwrap();
            row_group.close().unwrap();
            let file = file.into_inner().unwrap();
            let records = read(file.clone().into());
            assert_eq!(records[0].flow.srcaddr, Some("10.0.0.1".parse().unwrap()));
            assert_eq!((records[1].flow.srcaddr, records[3].flow.bytes), (None, Some(1500)));
            assert_eq!((records[3].flow.action, records[3].flow.srcport), (None, Some(4)));
            damage(&file);
        }
    }
}
