//! Records -> JSON lines: one object a line.
//!
//! Keys are AWS's hyphenated field names ("Flow log records"), in the order of the format. Integers are numbers, what
//! is not known is null, everything else is a string. AWS itself delivers no JSON; the shape is ours.

use std::io::Write;

use crate::field::Field;
use crate::format::Format;
use crate::record::Record;
use crate::value::{Value, value};

/// Writes records as JSON objects with the fields of one format.
#[derive(Debug, Clone)]
pub struct JsonEncoder {
    version: u8,
    columns: Vec<Column>,
}

/// A field and the bytes in front of its value: `{"name":` or `,"name":`.
#[derive(Debug, Clone)]
struct Column {
    field: Field,
    key: String,
}

impl JsonEncoder {
    /// An encoder for `format`.
    pub fn new(format: &Format) -> Self {
        let column = |(index, &field): (usize, &Field)| {
            let opening = if index == 0 { '{' } else { ',' };
            Column { field, key: format!("{opening}\"{field}\":") }
        };
        Self { version: format.version(), columns: format.fields().iter().enumerate().map(column).collect() }
    }

    /// Appends the object of `record`, with a line end, to `out`.
    pub fn encode(&self, record: &Record, out: &mut Vec<u8>) {
        for column in &self.columns {
            out.extend_from_slice(column.key.as_bytes());
            match column.field {
                Field::Version => push_value(Value::Int(self.version.into()), out),
                field => push_value(value(record, field), out),
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

fn push_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Absent => out.extend_from_slice(b"null"),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Word(text) | Value::Open(text) => {
            serde_json::to_writer(out, text).expect("a string always has a JSON form, and a vector takes it");
        }
        Value::Addr(addr) => push_quoted(addr, out),
        Value::Ether(addr) => push_quoted(addr, out),
    }
}

/// Appends what never needs escaping.
fn push_quoted(shown: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "\"{shown}\"").expect("writing to a vector cannot fail");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::examples::{EXAMPLES, formats, records};
    use crate::field::ColumnType;
    use crate::metadata::Metadata;
    use crate::record::Flow;

    fn lines(format: &Format, records: &[Record]) -> String {
        let mut out = Vec::new();
        let encoder = JsonEncoder::new(format);
        records.iter().for_each(|record| encoder.encode(record, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn examples_look_as_a_reader_expects() {
        let [accept, _, no_data, ..] = &EXAMPLES[0].records()[..] else { panic!("ten examples") };
        assert_eq!(
            lines(&Format::default(), std::slice::from_ref(accept)),
            concat!(
                r#"{"version":2,"account-id":"123456789010","interface-id":"eni-1235b8ca123456789","#,
                r#""srcaddr":"172.31.16.139","dstaddr":"172.31.16.21","srcport":20641,"dstport":22,"protocol":6,"#,
                r#""packets":20,"bytes":4249,"start":1418530010,"end":1418530070,"action":"ACCEPT","log-status":"OK"}"#,
                "\n"
            )
        );
        assert_eq!(
            lines(&"srcaddr bytes end log-status".parse().unwrap(), std::slice::from_ref(no_data)),
            "{\"srcaddr\":null,\"bytes\":null,\"end\":1431280934,\"log-status\":\"NODATA\"}\n"
        );
    }

    #[test]
    fn strings_are_escaped() {
        let flow = Flow { drop_reason: Some("say \"no\"\n\\".into()), ..Flow::default() };
        let record = Record::ok(Arc::new(Metadata::default()), 0, 0, flow);
        let line = lines(&"x-drop-reason".parse().unwrap(), &[record]);
        assert_eq!(line, "{\"x-drop-reason\":\"say \\\"no\\\"\\n\\\\\"}\n");
    }

    proptest! {
        /// A stranger's parser finds in every object what a stranger's reading of the text line finds.
        #[test]
        fn a_json_parser_reads_what_the_text_says(records in records(), format in formats()) {
            let json = lines(&format, &records);
            let text = crate::examples::lines_of(&format, &records);
            prop_assert_eq!(json.lines().count(), records.len());
            for (object, line) in json.lines().zip(text.lines()) {
                let object: serde_json::Map<String, Json> = serde_json::from_str(object).unwrap();
                prop_assert_eq!(object.len(), format.fields().len());
                for (&field, column) in format.fields().iter().zip(line.split(' ')) {
                    let expected = match (column, field.column_type()) {
                        ("-", _) => Json::Null,
                        (text, ColumnType::Str) => Json::from(text),
                        (number, _) => Json::from(number.parse::<i64>().unwrap()),
                    };
                    prop_assert_eq!(&object[field.name()], &expected, "{}", field);
                }
            }
        }
    }
}
