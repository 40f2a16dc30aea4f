//! Every flag of `flowtap replay` and every key of its configuration file changes something that can be seen.

use std::collections::BTreeSet;

use flowtap_tests::{Dir, Replay, Rows, assert_text, root};

#[track_caller]
fn replay(capture: &str, arguments: &[&str]) -> Replay {
    let dir = Dir::new();
    dir.add_capture(capture);
    dir.replay(&[&[capture], arguments].concat())
}

/// The one complaint of a run that must be refused before anything is done.
#[track_caller]
fn refusal(arguments: &[&str]) -> String {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    let run = dir.flowtap(&[&["replay", "demo.pcap"], arguments].concat());
    assert!(run.stdout.is_empty(), "it wrote all the same");
    run.failure(2)
}

#[test]
fn interval() {
    // Packet 9 is late in minutes, and packet 10 ten years ahead; within ten minutes all others are together.
    let log = replay("intervals.pcap", &["--interval", "10m", "-f", "${packets} ${start} ${end}"]).success();
    assert_text(&log, "packets start end\n11 1772442000 1772442260\n1 2087802000 2087802000\n");
    let seconds = replay("ping-matrix.pcap", &["--interval", "1s", "-f", "${srcaddr} ${packets} ${start}"]).success();
    assert_eq!(seconds.lines().count(), 9, "{seconds}");
    for wrong in ["0s", "601s", "60", "1h"] {
        let complaint = refusal(&["--interval", wrong]);
        assert!(complaint.contains(&format!("`{wrong}` is not an interval: write `1s` to `600s`")), "{complaint}");
    }
}

#[test]
fn filter() {
    let replay = replay("demo.pcap", &["--filter", "tcp port 22", "-f", "${srcport} ${dstport} ${protocol}"]);
    assert!(replay.count("/frames/filtered") > 0 && replay.count("/packets") > 0, "{}", replay.ledger);
    // What is not selected is filtered, also where it is not IP.
    assert_eq!(replay.sum("/frames/not-ip"), 0);
    let log = replay.success();
    for row in log.lines().skip(1) {
        assert!(row.ends_with(" 6") && row.split(' ').any(|port| port == "22"), "{row}");
    }
    let complaint = refusal(&["--filter", "tcp port"]);
    assert!(complaint.starts_with("flowtap: filter `tcp port`: libpcap error: ") && complaint.contains("syntax error"));
}

/// An expression that means nothing on a link type selects nothing there, and that is counted apart.
#[test]
fn a_filter_that_means_nothing_on_a_link_type() {
    let dir = Dir::new();
    dir.add_capture("raw-ip.pcap");
    dir.add_capture("ping-matrix.pcap");
    let replay = dir.replay(&["raw-ip.pcap", "ping-matrix.pcap", "--filter", "not ether host 02:00:00:00:00:99"]);
    assert_eq!((replay.count("/frames/unfilterable"), replay.count("/packets")), (4, 8));
    replay.success();
}

#[test]
fn local() {
    let directions = |arguments: &[&str]| {
        let format = ["-f", "${srcaddr} ${flow-direction}"];
        replay("ping-matrix.pcap", &[&format, arguments].concat()).success()
    };
    let [host, other] = ["172.31.16.139", "203.0.113.12"];
    let log = |of_host: &str, of_other: &str| format!("srcaddr flow-direction\n{host} {of_host}\n{other} {of_other}\n");
    assert_text(&directions(&[]), &log("-", "-"));
    assert_text(&directions(&["--local", "172.31.0.0/16"]), &log("egress", "ingress"));
    assert_text(&directions(&["--local", other]), &log("ingress", "egress"));
    assert_text(&directions(&["--local", host, "--local", other]), &log("-", "-"));
    let complaint = refusal(&["--local", "10.0.0.9/8"]);
    assert!(complaint.contains("bits are set beyond its prefix length"), "{complaint}");
}

/// The capture's own word on direction beats `--local`.
#[test]
fn a_capture_that_tells_directions_is_believed() {
    let log = replay("kuznetzov.pcap", &["--local", "198.51.100.80", "-f", "${srcaddr} ${flow-direction}"]).success();
    assert!(log.contains("\n10.0.1.10 egress\n"), "{log}");
}

#[test]
fn identity() {
    let format = "${account-id} ${interface-id} ${region} ${x-interface}";
    let log = |arguments: &[&str]| replay("raw-ip.pcap", &[&["-f", format], arguments].concat()).success();
    let rows = |row: &str| format!("account-id interface-id region x-interface\n{}", format!("{row}\n").repeat(4));
    assert_text(&log(&[]), &rows("unknown raw-ip - raw-ip"));
    let identity = ["--account-id", "000456789012", "--interface-id", "eni-0123456789abcdef0", "--region", "eu-dc-1"];
    assert_text(&log(&identity), &rows("000456789012 eni-0123456789abcdef0 eu-dc-1 raw-ip"));
    for wrong in [["--account-id", "a b"], ["--region", "eu/1"], ["--interface-id", "eth 0"]] {
        assert!(refusal(&wrong).contains(wrong[1]));
    }
}

#[test]
fn fragments() {
    let rows = |rule: &str| Rows::parse(&replay("fragments.pcap", &["--fragments", rule]).success()).len();
    let by_default = Rows::parse(&replay("fragments.pcap", &[]).success()).len();
    assert_eq!((rows("join"), rows("apart"), by_default), (15, 19, 15));
    assert!(refusal(&["--fragments", "drop"]).contains("write `join` or `apart`"));
}

#[test]
fn skipped_traffic() {
    let classes = |arguments: &[&str]| {
        let networks = ["--vpc-cidr", "10.0.0.0/16", "--subnet-cidr", "10.0.1.0/24", "-f", "${x-traffic-class}"];
        let replay = replay("services-v4.pcap", &[&networks, arguments].concat());
        let left_out: BTreeSet<String> =
            replay.ledger["omitted-packets"].as_object().unwrap().keys().cloned().collect();
        let written: BTreeSet<String> = replay.success().lines().skip(1).map(str::to_owned).collect();
        (written, left_out)
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let all = ["activation", "dhcp", "dns", "metadata", "mirror", "router", "time"];
    let with_ordinary = |names: &[&str]| set(&[names, &["-"]].concat());
    assert_eq!(classes(&[]), (with_ordinary(&all), set(&[])));
    assert_eq!(classes(&["--skipped-traffic", "log"]), (with_ordinary(&all), set(&[])));
    assert_eq!(classes(&["--skipped-traffic", "omit"]), (with_ordinary(&[]), set(&all)));
    for class in all {
        let others: Vec<&str> = all.into_iter().filter(|other| *other != class).collect();
        let omitted = classes(&["--skipped-traffic", &format!("{class}=omit")]);
        assert_eq!(omitted, (with_ordinary(&others), set(&[class])));
    }
    assert!(refusal(&["--skipped-traffic", "dnz=omit"]).contains("of the classes dns, dhcp, metadata"));
}

/// The resolver at base + 2 of the VPC and the router at base + 1 of the subnet are known only where these are.
#[test]
fn networks_of_the_cloud() {
    let bytes = |class: &str, arguments: &[&str]| {
        let log = replay("services-v4.pcap", &[&["-f", "${x-traffic-class} ${bytes}"], arguments].concat()).success();
        let mine = log.lines().filter_map(|row| row.strip_prefix(class)?.strip_prefix(' '));
        mine.map(|bytes| bytes.parse::<u64>().unwrap()).sum::<u64>()
    };
    // Without the VPC only 169.254.169.253 is known to resolve: one question and its answer.
    assert_eq!(bytes("dns", &[]), 130);
    assert_eq!(bytes("dns", &["--vpc-cidr", "10.0.0.0/16"]), 2 * 130 + 486);
    assert_eq!(bytes("dns", &["--vpc-cidr", "10.1.0.0/16"]), 130);
    assert_eq!(bytes("router", &[]), 0);
    assert_eq!(bytes("router", &["--subnet-cidr", "10.0.1.0/24"]), 2 * 84);
    assert!(refusal(&["--vpc-cidr", "10.0.0.0/31"]).contains("is not a VPC's primary block"));
    assert!(refusal(&["--subnet-cidr", "10.0.0.0/31"]).contains("is not a subnet"));
}

#[test]
fn format() {
    let header = |format: &str| {
        let log = replay("header-only.pcap", &["--format", format]).success();
        log.trim_end().split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(header("${bytes} ${version} ${srcaddr}"), ["bytes", "version", "srcaddr"]);
    // The counts that consumers tell layouts by: 14 by default, 29 up to version 5, 39 with ECS.
    let lengths =
        ["v2", "v3", "v4", "v5", "v7", "v8", "v9", "v10", "v11", "all", "full"].map(|name| header(name).len());
    assert_eq!(lengths, [14, 21, 25, 29, 39, 40, 41, 42, 54, 54, 66]);

    // The version is the highest among the fields of the format, and our own fields have none.
    for (format, version) in [
        ("${version}", "2"),
        ("${version} ${x-traffic-class}", "2"),
        ("${version} ${tcp-flags}", "3"),
        ("${region} ${version}", "4"),
        ("${flow-direction} ${version} ${vpc-id}", "5"),
        ("${version} ${ecs-task-id}", "7"),
        ("${version} ${reject-reason}", "8"),
        ("${version} ${resource-id}", "9"),
        ("${version} ${encryption-status}", "10"),
        ("${version} ${instance-tag}", "11"),
    ] {
        let rows = Rows::parse(&replay("raw-ip.pcap", &["-f", format]).success());
        assert_eq!(rows.column("version").unwrap(), [version; 4], "{format}");
    }
    for (wrong, complaint) in [
        ("${srcadr}", "no field is called `srcadr`; did you mean `srcaddr`?"),
        ("v6", "version 6 is Transit Gateway Flow Logs; choose v5 or v7"),
    ] {
        assert_text(&refusal(&["-f", wrong]), &format!("flowtap: {complaint}\n"));
    }
    for wrong in ["", "v12", "${bytes} ${bytes}", "${bytes"] {
        assert_eq!(refusal(&["-f", wrong]).lines().count(), 1, "{wrong}");
    }
}

/// Our own fields, by packets whose bytes are known from the captures' stories.
#[test]
fn fields_of_our_own() {
    let column = |capture: &str, field: &str| {
        let log = replay(capture, &["-f", &format!("${{{field}}}")]).success();
        log.lines().skip(1).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(column("ping-matrix.pcap", "x-icmp-type"), set(&["0", "8"]));
    assert_eq!(column("ping-matrix.pcap", "x-icmp-code"), set(&["0"]));
    assert_eq!(column("raw-ip.pcap", "x-vlan"), set(&["-"]));
    assert_eq!(column("raw-ip.pcap", "x-ether-src"), set(&["-"]));
    assert_eq!(column("raw-ip.pcap", "x-icmp-type"), set(&["-"]));
    // Six rounds with different tags in one flow: no one number.
    assert_eq!(column("vlan-qinq.pcap", "x-vlan"), set(&["-"]));
    let log = replay("vlan-qinq.pcap", &["-f", "${x-vlan}", "--filter", "vlan 100"]).success();
    assert!(log.lines().skip(1).all(|row| row == "100"), "{log}");
}

/// The example of the Community ID specification is another capture's; both directions of a conversation share theirs.
#[test]
fn both_directions_have_one_community_id() {
    let rows = Rows::parse(&replay("raw-ip.pcap", &["-f", "${protocol} ${x-community-id}"]).success());
    let ids = rows.column("x-community-id").unwrap();
    assert!(ids.iter().all(|id| id.starts_with("1:") && id.len() == 30), "{ids:?}");
    assert_eq!(rows.lines().into_iter().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn quiet_and_summary() {
    let dir = Dir::new();
    dir.add_capture("garbage-frames.pcap");
    let said = |arguments: &[&str]| {
        let run = dir.flowtap(&[&["replay", "garbage-frames.pcap"], arguments].concat());
        assert_eq!(run.code, Some(0));
        run.stderr
    };
    assert_text(&said(&["--quiet"]), "");
    assert_text(&said(&["--quiet", "--summary", "json"]), "");
    let text = said(&[]);
    assert_eq!(said(&["--summary", "text"]).lines().count(), text.lines().count());
    let without_time: String =
        text.lines().filter(|line| !line.starts_with("elapsed   ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(without_time.lines().count() + 1, text.lines().count());
    assert_text(
        &without_time,
        "\
frames    27 offered = 2 counted + 0 filtered + 6 not IP + 19 refused
  not IP: arp 1, eapol 1, lldp 1, macsec 1, other-protocol 1, spanning-tree 1
  refused: bad-header-length 1, bad-ip-version 3, bad-total-length 1, too-many-tags 2, truncated-ip-header 4, \
         truncated-link-header 2, truncated-tag 6
packets   2 counted, 84 bytes, 0 late
flows     2 in 1 intervals, at most 2 at once
rows      2 written (0 REJECT, 0 late), 1 SKIPDATA
ledger    balances: every frame is accounted for
",
    );
    assert!(refusal(&["--summary", "xml"]).contains("write `text` or `json`"));
}

#[test]
fn the_summary_names_files_and_omissions() {
    let dir = Dir::new();
    dir.add_capture("services-v4.pcap");
    let run = dir.flowtap(&["replay", "services-v4.pcap", "-o", "log.txt", "--skipped-traffic", "time=omit"]);
    let size = dir.read("log.txt").len();
    let text = run.stderr;
    // Time: one question and one answer.
    assert!(text.contains("\n  packets left out: time 2\n"), "{text}");
    assert!(text.contains(&format!("\nfile      log.txt (31 rows, {size} bytes)\n")), "{text}");
}

const CONFIG: &str = "
account-id = '123456789012'
region = 'eu-dc-1'

[[interface]]
name = 'raw-*'
interface-id = 'eni-0123456789abcdef0'
vpc-id = 'vpc-1'
subnet-id = 'subnet-1'
instance-id = 'i-1'
az-id = 'euw1-az1'
instance-tag = 'a b'
local = '10.0.0.0/8'

[[interface]]
name = '*'
interface-id = 'eni-other'

[flow-log]
format = '''
${account-id} ${interface-id} ${region} ${vpc-id} ${subnet-id} ${instance-id} ${az-id} ${instance-tag}
${flow-direction}'''
";

/// A file with one more line at its end, and what a replay of `raw-ip.pcap` with it gives.
fn configured(config: &str, arguments: &[&str]) -> (Dir, Replay) {
    let dir = Dir::new();
    dir.add_capture("raw-ip.pcap");
    dir.add("flowtap.toml", config);
    let replay = dir.replay(&[&["raw-ip.pcap", "--config", "flowtap.toml"], arguments].concat());
    (dir, replay)
}

#[test]
fn the_configuration_gives_metadata_by_interface() {
    let (_, replay) = configured(CONFIG, &[]);
    let header = "account-id interface-id region vpc-id subnet-id instance-id az-id instance-tag flow-direction\n";
    let common = "123456789012 eni-0123456789abcdef0 eu-dc-1 vpc-1 subnet-1 i-1 euw1-az1 a%20b";
    let rows = ["egress", "ingress", "-", "-"].map(|direction| format!("{common} {direction}\n")).concat();
    assert_text(&replay.success(), &format!("{header}{rows}"));

    let other = CONFIG.replace("raw-*", "eth[0-9]");
    let (_, replay) = configured(&other, &["-f", "${interface-id} ${vpc-id} ${account-id}"]);
    assert_text(
        &replay.success(),
        &format!("interface-id vpc-id account-id\n{}", "eni-other - 123456789012\n".repeat(4)),
    );
}

#[test]
fn flags_win_over_the_file() {
    let flags = ["-f", "${account-id} ${interface-id} ${region} ${vpc-id} ${flow-direction}"];
    let more = ["--account-id", "1", "--interface-id", "eni-2", "--region", "r-3", "--local", "198.51.100.0/24"];
    let (_, replay) = configured(
        CONFIG,
        &[flags, [more[0], more[1]], [more[2], more[3]], [more[4], more[5]], [more[6], more[7]]].concat(),
    );
    let rows = ["ingress", "egress", "-", "-"].map(|direction| format!("1 eni-2 r-3 vpc-1 {direction}\n")).concat();
    assert_text(&replay.success(), &format!("account-id interface-id region vpc-id flow-direction\n{rows}"));
}

#[test]
fn the_flow_log_of_the_file() {
    let rows = |keys: &str| {
        let dir = Dir::new();
        dir.add_capture("fragments.pcap");
        dir.add("flowtap.toml", format!("[flow-log]\n{keys}"));
        Rows::parse(&dir.replay(&["fragments.pcap", "--config", "flowtap.toml"]).success()).len()
    };
    assert_eq!(rows(""), 15);
    assert_eq!(rows("fragments = 'apart'"), 19);
    // Within ten minutes 6004's later piece finds its first one.
    assert_eq!(rows("interval = '600s'"), 14);
    assert_eq!(rows("traffic = 'reject'"), 0);
    assert_eq!(rows("workers = 2\nflow-table-max = 4194304\nskipped-traffic = { dns = 'omit' }"), 15);
}

#[test]
fn the_output_of_the_file() {
    let config = "[[output]]\nfile = 'log.json'";
    let (dir, replay) = configured(config, &[]);
    assert_text(&replay.success(), "");
    assert_eq!(dir.read("log.json").iter().filter(|byte| **byte == b'\n').count(), 4);
    // A place on the command line replaces the file's as a whole.
    let (dir, replay) = configured(config, &["-o", "-"]);
    assert!(replay.success().starts_with("version "));
    assert_eq!(dir.files(), ["flowtap.toml", "raw-ip.pcap"]);

    let config = "[[output]]\ndirectory = 'out'\nfile-format = 'parquet'\nhive-compatible-partitions = true\n\
                  per-hour-partition = true\nsegment-max = '75MB'";
    let (dir, _) = configured(config, &[]);
    let files = dir.files();
    let key = "out/AWSLogs/aws-account-id=unknown/aws-service=vpcflowlogs/aws-region=local/\
               year=2026/month=03/day=02/hour=09/unknown_vpcflowlogs_local_fl-";
    assert!(files[1].starts_with(key) && files[1].ends_with(".log.parquet"), "{files:?}");
    let needs = refusal(&["-o", "log", "--per-hour-partition"]);
    assert_text(&needs, "flowtap: `per-hour-partition` needs a directory to write to\n");
}

/// The example is taken as it stands, but for the place of its files.
#[test]
fn the_example_configuration_is_sound() {
    let example = std::fs::read_to_string(root().join("packaging/examples/flowtap.toml")).unwrap();
    let (_, replay) = configured(&example, &["--output", "-", "--file-format", "text"]);
    assert_eq!(replay.count("/rows/written"), 4);
    replay.success();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_line() {
    for (config, complaint) in [
        ("acount-id = '1'", "line 1: unknown key `acount-id`, did you mean `account-id`?"),
        ("\n[flow-log]\nintervall = '60s'", "line 3: unknown key `intervall`, did you mean `interval`?"),
        ("[[interface]]\nname = 'eth0'\nvpcid = 'vpc-1'", "line 3: unknown key `vpcid`, did you mean `vpc-id`?"),
        ("[flow-log]\ninterval = '0s'", "line 2: `0s` is not an interval: write `1s` to `600s`, or minutes like `10m`"),
    ] {
        let dir = Dir::new();
        dir.add_capture("demo.pcap");
        dir.add("flowtap.toml", config);
        let run = dir.flowtap(&["replay", "demo.pcap", "--config", "flowtap.toml"]);
        assert!(run.stdout.is_empty());
        assert_text(&run.failure(2), &format!("flowtap: flowtap.toml: {complaint}\n"));
    }
    let missing = refusal(&["--config", "missing.toml"]);
    assert_text(&missing, "flowtap: missing.toml: No such file or directory (os error 2)\n");
}

/// Every flag is in the help, and has its test here or in another module.
#[test]
fn the_help_knows_every_flag() {
    let help = Dir::new().flowtap(&["replay", "--help"]).success();
    let flags: BTreeSet<&str> =
        help.split(|c: char| c.is_whitespace() || c == ',').filter(|word| word.starts_with("--")).collect();
    let expected = [
        "--account-id",
        "--compression",
        "--config",
        "--file-format",
        "--filter",
        "--flow-table-max",
        "--format",
        "--fragments",
        "--help",
        "--hive-compatible-partitions",
        "--interface-id",
        "--interval",
        "--local",
        "--mirror",
        "--mirror-to",
        "--output",
        "--overwrite",
        "--path-mtu",
        "--per-hour-partition",
        "--policy",
        "--quiet",
        "--region",
        "--skipped-traffic",
        "--speed",
        "--subnet-cidr",
        "--summary",
        "--traffic",
        "--vpc-cidr",
        "--wire-mtu",
        "--workers",
    ];
    assert_eq!(flags, expected.into());
}
