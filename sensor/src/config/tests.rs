//! Files and flags as a whole.

use std::collections::BTreeMap;

use flowlog::record::TrafficClass;
use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    RawConfig::parse(text).unwrap_err().to_string()
}

fn settings(text: &str, flags: Flags) -> Settings {
    Settings::new(Some(RawConfig::parse(text).unwrap()), flags).unwrap()
}

/// Every key there is.
const EVERYTHING: &str = r#"
account-id = "123456789012"
region = "eu-dc-1"
aws-parity = false

[[interface]]
name = "eth0"
interface-id = "eni-0123456789abcdef0"
vpc-id = "vpc-1"
interface-tag = "web server"
vpc-cidr = "10.0.0.0/16"
subnet-cidr = ["10.0.1.0/24", "2001:db8:0:1::/64"]
local = ["10.0.1.9", "2001:db8:0:1::9"]

[[interface]]
name = "eth*"
subnet-id = "subnet-2"

[flow-log]
format = "v5"
interval = "10m"
traffic = "reject"
skipped-traffic = { dns = "omit", dhcp = "log" }
fragments = "apart"
workers = 4
flow-table-max = 1000

[[output]]
directory = "/var/log/flowtap"
file-format = "parquet"
compression = "zstd"
segment-max = "64MiB"
hive-compatible-partitions = true
per-hour-partition = true

[[mirror.target]]
name = "ids"
address = "192.0.2.1"
port = 4790
encapsulation = "geneve"
weight = 2
health-check = { protocol = "http", port = 80, path = "/", interval = "9s", timeout = "1s", healthy-threshold = 1 }

[[mirror.filter]]
name = "web"
rules = [
  { direction = "ingress", number = 9, action = "accept", protocol = "tcp", source = "10.0.0.0/8", source-ports = 80 },
  { number = 5, action = "reject", service = "dns", verdict = "rejected", description = "none" },
]

[[mirror.session]]
number = 1
interface = "eth*"
filter = "web"
targets = ["ids"]
mode = "replicate"
vni = 7
packet-length = 60
too-big = "skip"
offload = "auto"
packets-per-second-max = 10
bits-per-second-max = "1Gbit"
description = "all of it"
"#;

/// What is known of the interface called `name`, which always knows its own name.
fn pairs(name: &str, metadata: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = [("x-interface", name)];
    metadata.iter().chain(&own).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_file_with_every_key() {
    let settings = settings(EVERYTHING, Flags::default());
    assert_eq!(settings.format, "v5");
    assert_eq!(settings.interval.secs(), 600);
    assert_eq!(settings.traffic, TrafficSelection::Reject);
    assert!(settings.skipped_traffic.omits(TrafficClass::Dns) && !settings.skipped_traffic.omits(TrafficClass::Dhcp));
    assert_eq!(settings.fragments, FragmentRule::Apart);
    assert_eq!(settings.workers.unwrap().count().get(), 4);
    assert_eq!(settings.flow_table_max.flows().get(), 1000);
    assert_eq!(
        settings.output,
        Output {
            destination: Destination::Directory("/var/log/flowtap".into()),
            file_format: FileFormat::Parquet,
            compression: Compression::Zstd,
            segment_max: "64MiB".parse().unwrap(),
            hive_compatible_partitions: true,
            per_hour_partition: true,
            overwrite: false,
        }
    );
}

#[test]
fn without_file_and_flags_the_defaults_hold() {
    let settings = Settings::new(None, Flags::default()).unwrap();
    assert_eq!((settings.format.as_str(), settings.interval.secs()), ("v2", 60));
    assert_eq!((settings.traffic, settings.fragments), (TrafficSelection::All, FragmentRule::Join));
    assert_eq!(settings.skipped_traffic, SkippedTraffic::LOG);
    assert_eq!(settings.workers, None);
    assert_eq!(settings.output.destination, Destination::Stdout);
    assert_eq!((settings.output.file_format, settings.output.compression), (FileFormat::Text, Compression::None));
    let interface = settings.interface("trace");
    assert_eq!(interface.metadata, pairs("trace", &[("account-id", "unknown"), ("interface-id", "trace")]));
    assert!(interface.vpc_cidrs.is_empty() && interface.subnet_cidrs.is_empty() && interface.local.is_empty());
}

#[test]
fn the_first_interface_table_that_matches_speaks() {
    let settings = settings(EVERYTHING, Flags::default());
    let eth0 = settings.interface("eth0");
    let common = [("account-id", "123456789012"), ("region", "eu-dc-1")];
    let own = [("interface-id", "eni-0123456789abcdef0"), ("interface-tag", "web server"), ("vpc-id", "vpc-1")];
    assert_eq!(eth0.metadata, pairs("eth0", &[common[0], common[1], own[0], own[1], own[2]]));
    assert_eq!(eth0.vpc_cidrs, ["10.0.0.0/16".parse().unwrap()]);
    assert_eq!(eth0.subnet_cidrs, ["10.0.1.0/24".parse().unwrap(), "2001:db8:0:1::/64".parse().unwrap()]);
    assert_eq!(eth0.local, ["10.0.1.9/32".parse().unwrap(), "2001:db8:0:1::9/128".parse().unwrap()]);

    let eth1 = settings.interface("eth1");
    assert_eq!(
        eth1.metadata,
        pairs("eth1", &[common[0], common[1], ("interface-id", "eth1"), ("subnet-id", "subnet-2")])
    );
    assert!(eth1.local.is_empty());
    assert_eq!(settings.interface("lo").metadata, pairs("lo", &[common[0], common[1], ("interface-id", "lo")]));
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags {
        format: Some("v3".to_owned()),
        interval: Some("60s".parse().unwrap()),
        traffic: Some("all".parse().unwrap()),
        skipped_traffic: Some("omit".parse().unwrap()),
        fragments: Some("join".parse().unwrap()),
        workers: Some("2".parse().unwrap()),
        flow_table_max: Some("5".parse().unwrap()),
        account_id: Some("210987654321".parse().unwrap()),
        region: Some("eu-dc-2".parse().unwrap()),
        interface_id: Some("eni-f".parse().unwrap()),
        local: vec!["10.9.9.9".parse().unwrap()],
        vpc_cidr: vec!["10.9.0.0/16".parse().unwrap()],
        subnet_cidr: vec!["10.9.9.0/24".parse().unwrap()],
        file_format: Some("text".parse().unwrap()),
        compression: Some("gzip".parse().unwrap()),
        per_hour_partition: Some(false),
        ..Flags::default()
    };
    let settings = settings(EVERYTHING, flags);
    assert_eq!((settings.format.as_str(), settings.interval.secs()), ("v3", 60));
    assert_eq!((settings.traffic, settings.fragments), (TrafficSelection::All, FragmentRule::Join));
    assert_eq!(settings.skipped_traffic, SkippedTraffic::OMIT);
    assert_eq!(settings.workers.unwrap().count().get(), 2);
    assert_eq!(settings.flow_table_max.flows().get(), 5);
    let output = &settings.output;
    assert_eq!(output.destination, Destination::Directory("/var/log/flowtap".into()));
    assert_eq!((output.file_format, output.compression), (FileFormat::Text, Compression::Gzip));
    assert_eq!((output.hive_compatible_partitions, output.per_hour_partition), (true, false));
    let eth1 = settings.interface("eth1");
    let expected =
        [("account-id", "210987654321"), ("region", "eu-dc-2"), ("interface-id", "eni-f"), ("subnet-id", "subnet-2")];
    assert_eq!(eth1.metadata, pairs("eth1", &expected));
    let eth0 = settings.interface("eth0");
    assert_eq!(eth0.local, ["10.9.9.9/32".parse().unwrap()]);
    assert_eq!(eth0.vpc_cidrs, ["10.9.0.0/16".parse().unwrap()]);
    assert_eq!(eth0.subnet_cidrs, ["10.9.9.0/24".parse().unwrap()]);
}

#[test]
fn an_output_flag_replaces_the_whole_output() {
    let flags = Flags { output: Some("-".parse().unwrap()), overwrite: true, ..Flags::default() };
    let output = settings(EVERYTHING, flags).output;
    assert_eq!(
        output,
        Output {
            destination: Destination::Stdout,
            file_format: FileFormat::Text,
            compression: Compression::None,
            segment_max: SegmentMax::default(),
            hive_compatible_partitions: false,
            per_hour_partition: false,
            overwrite: true,
        }
    );
}

#[test]
fn several_files_need_a_directory() {
    let refusal =
        |text: &str, flags: Flags| Settings::new(Some(RawConfig::parse(text).unwrap()), flags).unwrap_err().to_string();
    assert_eq!(
        refusal("[[output]]\nfile = 'x'\nper-hour-partition = true\n", Flags::default()),
        "`per-hour-partition` needs a directory to write to"
    );
    assert_eq!(
        refusal("[[output]]\nsegment-max = '75MB'\n", Flags::default()),
        "`segment-max` needs a directory to write to"
    );
    let flags = Flags { hive_compatible_partitions: Some(true), ..Flags::default() };
    assert_eq!(refusal("", flags), "`hive-compatible-partitions` needs a directory to write to");
}

#[test]
fn unknown_keys_are_refused_with_line_and_suggestion() {
    assert_eq!(
        refusal("[flow-log]\nformat = 'v5'\nintreval = '60s'\n"),
        "line 3: unknown key `intreval`, did you mean `interval`?"
    );
    assert_eq!(refusal("[flow_log]\n"), "line 1: unknown key `flow_log`, did you mean `flow-log`?");
    assert_eq!(
        refusal("[[interface]]\nname = 'eth0'\nvpcid = 'vpc-1'\n"),
        "line 3: unknown key `vpcid`, did you mean `vpc-id`?"
    );
    assert_eq!(
        refusal("[[output]]\ndirectory = 'x'\nhive-partitions = true\n"),
        "line 3: unknown key `hive-partitions`, did you mean `hive-compatible-partitions`?"
    );
    assert_eq!(
        refusal("[flow-log]\nskipped-traffic = { dnz = 'omit' }\n"),
        "line 2: unknown key `dnz`, did you mean `dns`?"
    );
}

#[test]
fn keys_that_nothing_would_honour_are_unknown() {
    let known = "known here: `account-id`, `region`, `aws-parity`, `filter`, `policy`, `metadata`, `capture`, \
                 `capture-buffer`, `fanout`, `user`, `control-socket`, `state-directory`, `metrics`, `interface`, \
                 `kernel`, `flow-log`, `output`, `mirror`";
    assert_eq!(refusal("\nverbose = true\n"), format!("line 2: unknown key `verbose`, {known}"));
}

#[test]
fn wrong_values_are_refused_with_line() {
    assert_eq!(
        refusal("[flow-log]\ninterval = 60\n"),
        "line 2: `60` is not an interval: write `1s` to `600s`, or minutes like `10m`"
    );
    assert_eq!(
        refusal("[flow-log]\n\nskipped-traffic = { dns = 'drop' }\n"),
        "line 3: `drop` is not a treatment of skipped traffic: write `log` or `omit`"
    );
    assert_eq!(
        refusal("account-id = '1234/5678'\n"),
        "line 1: `1234/5678` is not a name for paths: write 1 to 64 letters, digits and hyphens"
    );
    assert_eq!(
        refusal("[[interface]]\nname = 'eth0'\nvpc-id = 'vpc 1'\n"),
        "line 3: `vpc 1` is not a value for a flow log: write 1 to 2048 bytes without spaces"
    );
    assert_eq!(
        refusal("[[interface]]\nname = 'eth0'\nlocal = [\n  '10.0.0.0/8',\n  '10.0.0.1/8',\n]\n"),
        "line 5: `10.0.0.1/8` is not an address block: bits are set beyond its prefix length"
    );
    assert_eq!(refusal("[[interface]]\nvpc-id = 'vpc-1'\n"), "line 1: missing field `name`");
    assert_eq!(
        refusal("[[output]]\nper-hour-partition = 'yes'\n"),
        "line 2: invalid type: string \"yes\", expected a boolean"
    );
}

#[test]
fn there_is_one_output_and_it_has_one_place() {
    assert_eq!(
        refusal("[[output]]\nfile = 'x'\n\n[[output]]\nfile = 'y'\n"),
        "line 4: there can be only one [[output]]"
    );
    assert_eq!(
        refusal("\n[[output]]\nfile = 'x'\ndirectory = 'y'\n"),
        "line 2: [[output]] has a `directory` and a `file`, it can have one of them"
    );
}

#[test]
fn fuzzing_survives_what_it_is_made_for() {
    fuzz(b"\xff");
    fuzz(b"[flow-log]\nworkers = -9223372036854775808");
    fuzz(EVERYTHING.as_bytes());
    fuzz("a = [".repeat(10_000).as_bytes());
    fuzz("[".repeat(100_000).as_bytes());
}

proptest! {
    #[test]
    fn damaged_files_are_refused_and_nothing_worse(
        at in any::<prop::sample::Index>(), damage in "\\PC{0,4}", cut in 0_usize..8
    ) {
        let characters: Vec<char> = EVERYTHING.chars().collect();
        let (head, tail) = characters.split_at(at.index(characters.len()));
        let text: String = head.iter().copied().chain(damage.chars()).chain(tail.iter().copied().skip(cut)).collect();
        fuzz(text.as_bytes());
    }
}
