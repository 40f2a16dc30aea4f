//! What captures must add up to: tables of tab-separated values with a line of column names.
//!
//! [`expected`] reads the tables beside the project's own captures, [`oracle`] those of a collection of public captures
//! that an independent parser made. Both have the same columns; the oracle's has more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The totals by flow.
    pub rows: BTreeMap<Flow, Totals>,
    /// Numbers from lines such as `# refused 3`.
    pub counts: BTreeMap<String, u64>,
}

/// The address part of a flow key. Later pieces of fragmented datagrams stand apart, with ports 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// What a flow adds up to over the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Number of packets.
    pub packets: u64,
    /// Sum of IP total lengths.
    pub ip_bytes: u64,
    /// Time of the earliest packet, nanoseconds since the Unix epoch.
    pub first_ns: u64,
    /// Time of the latest packet.
    pub last_ns: u64,
    /// OR of the TCP flag bytes; `None` where it is no TCP.
    pub tcp_flags: Option<u8>,
    /// How many of the packets the oracle calls odd, so that tools may differ. 0 where the table does not say.
    pub odd_packets: u64,
}

/// The table of one of the project's own captures, by its file name.
///
/// # Panics
/// If there is none, or it is no such table.
pub fn expected(capture: &str) -> Table {
    let stem = capture.split_once('.').map_or(capture, |(stem, _)| stem);
    let path = crate::root().join("pcaps/expected").join(format!("{stem}.tsv"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Table::parse(&text).unwrap_or_else(|line| panic!("{}: can't read {line:?}", path.display()))
}

/// Every public capture with its table, sorted by path; `None`, and a word about it, where the collection is absent.
///
/// # Panics
/// If the collection is there and a table is missing or can't be read.
pub fn oracle() -> Option<Vec<(PathBuf, Table)>> {
    let folder = crate::root().join("../shared/pcaps/open");
    let Ok(entries) = fs::read_dir(&folder) else {
        skip("no collection of public captures");
        return None;
    };
    let is_capture =
        |path: &PathBuf| path.extension().is_some_and(|kind| ["pcap", "pcapng", "cap"].iter().any(|k| kind == *k));
    let mut captures: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_capture).collect();
    captures.sort();
    let with_table = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let table = folder.join("oracle").join(format!("{name}.tsv"));
        let text = fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
        let table = Table::parse(&text).unwrap_or_else(|line| panic!("{}: can't read {line:?}", table.display()));
        (path, table)
    };
    Some(captures.into_iter().map(with_table).collect())
}

/// Says that a test could not run.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

impl Table {
    /// Reads a table. Rows of one flow (the oracle tells apart by which link layers it came) are added up.
    ///
    /// # Errors
    /// The line that can't be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut columns: Option<Vec<&str>> = None;
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let count = comment.split_once(' ').and_then(|(name, count)| Some((name, count.parse().ok()?)));
                table.counts.extend(count.map(|(name, count)| (name.to_owned(), count)));
            } else if let Some(columns) = &columns {
                let values: Vec<&str> = line.split('\t').collect();
                let (flow, totals) = row(columns, &values).ok_or_else(|| line.to_owned())?;
                table.rows.entry(flow).and_modify(|sum| sum.add(&totals)).or_insert(totals);
            } else {
                columns = Some(line.split('\t').collect());
            }
        }
        Ok(table)
    }

    /// What the rows of a log in [`FORMAT`] add up to, over all intervals and interfaces.
    ///
    /// # Panics
    /// If it is no such log.
    #[track_caller]
    pub fn of_log(log: &str) -> Self {
        let mut table = Self::default();
        let mut lines = log.lines();
        assert_eq!(lines.next(), Some(HEADER));
        for line in lines.filter(|line| !line.ends_with(" SKIPDATA")) {
            let (flow, totals) = log_row(line).unwrap_or_else(|| panic!("{line:?} is no such row"));
            table.rows.entry(flow).and_modify(|sum| sum.add(&totals)).or_insert(totals);
        }
        table
    }

    /// Every flow on which this table and `other` do not agree, with what each says. What the oracle calls odd is not
    /// compared.
    pub fn differences(&self, other: &Self) -> Vec<(Flow, Option<Totals>, Option<Totals>)> {
        let plain = |table: &Self, flow| {
            let totals: Option<&Totals> = table.rows.get(flow);
            totals.map(|totals| Totals { odd_packets: 0, ..totals.clone() })
        };
        let flows: BTreeSet<&Flow> = self.rows.keys().chain(other.rows.keys()).collect();
        let both = flows.into_iter().map(|flow| (*flow, plain(self, flow), plain(other, flow)));
        both.filter(|(_, own, others)| own != others).collect()
    }

    /// Packets and IP bytes of all flows.
    pub fn sum(&self) -> (u64, u64) {
        self.rows.values().fold((0, 0), |(packets, bytes), row| (packets + row.packets, bytes + row.ip_bytes))
    }
}

impl Totals {
    /// Adds what another part of the same flow adds up to.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.ip_bytes += other.ip_bytes;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.tcp_flags = self.tcp_flags.zip(other.tcp_flags).map(|(own, more)| own | more);
        self.odd_packets += other.odd_packets;
    }
}

/// A line of a log in [`FORMAT`].
fn log_row(line: &str) -> Option<(Flow, Totals)> {
    let values: Vec<&str> = line.split(' ').collect();
    let [src, dst, src_port, dst_port, protocol, packets, ip_bytes, flags, first_ns, last_ns, "OK"] = values[..] else {
        return None;
    };
    let flow = Flow {
        src: src.parse().ok()?,
        dst: dst.parse().ok()?,
        src_port: src_port.parse().ok()?,
        dst_port: dst_port.parse().ok()?,
        protocol: protocol.parse().ok()?,
    };
    let tcp_flags = flags.parse().ok()?;
    let totals = Totals {
        packets: packets.parse().ok()?,
        ip_bytes: ip_bytes.parse().ok()?,
        first_ns: first_ns.parse().ok()?,
        last_ns: last_ns.parse().ok()?,
        // A log has 0 where there is no TCP, the tables have `-`.
        tcp_flags: (flow.protocol == TCP || tcp_flags != 0).then_some(tcp_flags),
        odd_packets: 0,
    };
    Some((flow, totals))
}

/// The format of the logs that [`Table::of_log`] reads.
pub const FORMAT: &str = "${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} \
                          ${x-tcp-flags-raw} ${x-first-ns} ${x-last-ns} ${log-status}";

const HEADER: &str = "srcaddr dstaddr srcport dstport protocol packets bytes \
                      x-tcp-flags-raw x-first-ns x-last-ns log-status";

const TCP: u8 = 6;

fn row(columns: &[&str], values: &[&str]) -> Option<(Flow, Totals)> {
    let text = |name: &str| values.get(columns.iter().position(|column| *column == name)?).copied();
    fn number<N: FromStr>(text: Option<&str>) -> Option<N> {
        text?.parse().ok()
    }
    let flow = Flow {
        src: number(text("src"))?,
        dst: number(text("dst"))?,
        src_port: number(text("sport"))?,
        dst_port: number(text("dport"))?,
        protocol: number(text("proto"))?,
    };
    let tcp_flags = match text("tcp_flags_or")? {
        "-" => None,
        flags => Some(u8::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?),
    };
    let totals = Totals {
        packets: number(text("packets"))?,
        ip_bytes: number(text("ip_bytes"))?,
        first_ns: number(text("first_ns"))?,
        last_ns: number(text("last_ns"))?,
        tcp_flags,
        odd_packets: number(text("odd_packets").or(Some("0")))?,
    };
    Some((flow, totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_its_column_names() {
        let text = "# frames 3\n# refused 1\n#   frame 2: cut short\n\
                    src\tdst\tsport\tdport\tproto\tpackets\tip_bytes\twire_ip_bytes\tfirst_ns\tlast_ns\ttcp_flags_or\todd_packets\n\
                    10.0.0.1\t10.0.0.2\t5\t6\t6\t2\t80\t92\t7\t9\t0x12\t1\n\
                    10.0.0.1\t10.0.0.2\t5\t6\t6\t1\t40\t46\t3\t3\t0x01\t0\n\
                    2001:db8::1\t2001:db8::2\t0\t0\t58\t1\t104\t104\t4\t4\t-\t0\n";
        let table = Table::parse(text).unwrap();
        let tcp = &table.rows.values().next().unwrap();
        assert_eq!((tcp.packets, tcp.ip_bytes, tcp.first_ns, tcp.last_ns), (3, 120, 3, 9));
        assert_eq!((tcp.tcp_flags, tcp.odd_packets), (Some(0x13), 1));
        assert_eq!(table.rows.values().last().unwrap().tcp_flags, None);
        assert_eq!(table.sum(), (4, 224));
        assert_eq!((table.counts["frames"], table.counts["refused"]), (3, 1));
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        let text = "src\tdst\n10.0.0.1\tnowhere\n";
        assert_eq!(Table::parse(text), Err("10.0.0.1\tnowhere".to_owned()));
    }

    #[test]
    fn a_log_is_added_up_and_compared() {
        let text = "src\tdst\tsport\tdport\tproto\tpackets\tip_bytes\tfirst_ns\tlast_ns\ttcp_flags_or\todd_packets\n\
                    10.0.0.1\t10.0.0.2\t5\t6\t6\t3\t120\t3\t9\t0x13\t1\n\
                    10.0.0.1\t10.0.0.2\t5\t6\t17\t1\t28\t3\t3\t-\t0\n";
        let table = Table::parse(text).unwrap();
        let log = "10.0.0.1 10.0.0.2 5 6 6 1 40 1 3 3 OK\n\
                   10.0.0.1 10.0.0.2 5 6 17 1 28 0 3 3 OK\n\
                   - - - - - - - - - - SKIPDATA\n\
                   10.0.0.1 10.0.0.2 5 6 6 2 80 18 7 9 OK\n";
        let log = Table::of_log(&format!("{HEADER}\n{log}"));
        assert_eq!(log.differences(&table), []);
        let log = Table::of_log(&format!("{HEADER}\n10.0.0.1 10.0.0.2 5 6 6 3 120 19 3 8 OK\n"));
        assert_eq!(log.differences(&table).len(), 2);
    }

    #[test]
    fn the_projects_tables_are_read() {
        // Four requests and four replies of 84 bytes.
        let table = expected("ping-matrix.pcap");
        assert_eq!((table.rows.len(), table.sum()), (2, (8, 672)));
        assert_eq!(expected("garbage-frames.pcap").counts["refused"], 19);
    }

    #[test]
    fn the_oracle_is_read_where_it_is() {
        let Some(oracle) = oracle() else { return };
        assert_eq!(oracle.len(), 120);
        assert!(oracle.iter().any(|(_, table)| table.sum().0 > 1_000));
    }
}
