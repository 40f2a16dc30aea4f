//! Traffic mirroring as its configuration tells it: `flowtap mirror explain` and `flowtap check`.

use std::fs;

use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, assert_text, capture, root};

const CONFIG: &str = r#"
[[interface]]
name = "eth*"
vpc-cidr = "10.0.0.0/16"

[[mirror.target]]
name = "ids-1"
address = "192.0.2.1"

[[mirror.target]]
name = "ids-2"
address = "2001:db8::2"
encapsulation = "geneve"

[[mirror.filter]]
name = "web"
rules = [
  { direction = "ingress", number = 100, action = "reject", protocol = "tcp", source = "10.0.9.0/24", description = "the backup net" },
  { direction = "ingress", number = 200, action = "accept", protocol = "tcp", destination-ports = "80-443" },
  { number = 300, action = "accept", service = "dns" },
]

[[mirror.filter]]
name = "dropped"
rules = [{ direction = "ingress", number = 10, action = "accept", verdict = "rejected" }]

[[mirror.filter]]
name = "rest"
rules = [
  { direction = "ingress", number = 1, action = "accept" },
  { direction = "egress", number = 1, action = "accept" },
]

[[mirror.session]]
number = 10
interface = "eth0"
filter = "web"
targets = ["ids-1", "ids-2"]
vni = 77

[[mirror.session]]
number = 20
interface = "eth*"
filter = "dropped"
target = "ids-2"

[[mirror.session]]
number = 30
interface = "eth0"
filter = "rest"
targets = ["ids-1", "ids-2"]
mode = "replicate"
vni = 78

[[mirror.session]]
number = 5
interface = "wg0"
filter = "rest"
target = "ids-1"
"#;

fn explain(arguments: &[&str]) -> String {
    let dir = Dir::new();
    dir.add("flowtap.toml", CONFIG);
    dir.flowtap(&[&["mirror", "explain", "--config", "flowtap.toml"], arguments].concat()).success()
}

#[test]
fn the_session_and_the_rule_that_take_a_packet() {
    assert_text(
        &explain(&["tcp", "203.0.113.9:40000", "10.0.1.1:443", "--direction", "ingress", "--interface", "eth0"]),
        "ingress tcp 203.0.113.9:40000 > 10.0.1.1:443 on eth0\n\
         session 5     is for interfaces that match `wg0`, and no [[interface]] does\n\
         session 10    accepts it by ingress rule 200 of filter `web`: accept tcp from any to any ports 80-443\n\
         session 20    is not asked\n\
         session 30    is not asked\n\
         mirrored by session 10, rule 200, with VNI 77, to one of ids-1 (192.0.2.1:4789, vxlan), \
         ids-2 ([2001:db8::2]:6081, geneve)\n",
    );
}

#[test]
fn why_the_sessions_before_it_do_not() {
    assert_text(
        &explain(&["tcp", "10.0.9.7:40000", "10.0.1.1:443", "--direction", "ingress", "--interface", "eth0"]),
        "ingress tcp 10.0.9.7:40000 > 10.0.1.1:443 on eth0\n\
         session 5     is for interfaces that match `wg0`, and no [[interface]] does\n\
         session 10    rejects it by ingress rule 100 of filter `web`: reject tcp from 10.0.9.0/24 to any \
         (the backup net)\n\
         session 20    has no ingress rule for it in filter `dropped`\n\
         session 30    accepts it by ingress rule 1 of filter `rest`: accept all from any to any\n\
         mirrored by session 30, rule 1, with VNI 78, to ids-1 (192.0.2.1:4789, vxlan), \
         ids-2 ([2001:db8::2]:6081, geneve)\n",
    );
}

#[test]
fn a_packet_that_nobody_takes() {
    assert_text(
        &explain(&["icmpv6", "2001:db8::9", "2001:db8::1", "--direction", "egress", "--interface", "eth1"]),
        "egress icmpv6 2001:db8::9 > 2001:db8::1 on eth1\n\
         session 5     is for interfaces that match `wg0`, and no [[interface]] does\n\
         session 10    is for interfaces that match `eth0`\n\
         session 20    has no egress rule for it in filter `dropped`\n\
         session 30    is for interfaces that match `eth0`\n\
         not mirrored\n",
    );
}

#[test]
fn services_drops_and_our_own_copies() {
    // The VPC's resolver is its base + 2.
    let dns = explain(&["udp", "10.0.1.1:4000", "10.0.0.2:53", "--direction", "egress", "--interface", "eth0"]);
    assert!(dns.starts_with("egress udp 10.0.1.1:4000 > 10.0.0.2:53 on eth0, traffic class dns\n"), "{dns}");
    assert!(dns.contains("session 10    accepts it by egress rule 300 of filter `web`: accept dns all"), "{dns}");

    let dropped =
        explain(&["udp", "10.9.1.1:1", "10.0.0.9:2", "--direction", "ingress", "--interface", "eth1", "--rejected"]);
    assert!(dropped.contains("on eth1, dropped by the kernel\n"), "{dropped}");
    assert!(dropped.contains("\nmirrored by session 20, rule 10, with VNI "), "{dropped}");
    assert!(dropped.ends_with(", to ids-2 ([2001:db8::2]:6081, geneve)\n"), "{dropped}");

    let own = ["udp", "10.0.1.1:50000", "192.0.2.1:4789", "--direction", "egress", "--interface", "eth0"];
    let text = explain(&own);
    assert!(text.contains("session 30    accepts it by egress rule 1"), "{text}");
    assert!(text.ends_with(OWN), "{text}");
    let json: serde_json::Value = serde_json::from_str(&explain(&[&own[..], &["--json"]].concat())).unwrap();
    assert_eq!((&json["own-output"], &json["mirrored"], &json["session"]), (&true.into(), &false.into(), &().into()));
}

const OWN: &str = "not mirrored: one end is a target and one port a tunnel's, so it is a copy, or an answer to one\n";

/// What `explain` says of a packet is what a replay does with it: both know our copies by one definition.
#[test]
fn explain_and_replay_agree_on_what_is_a_copy() {
    let datagram = |src: [u8; 4], dst: [u8; 4], ports: [u16; 2]| {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
        frame.extend([src, dst].concat());
        frame.extend(ports.map(u16::to_be_bytes).concat());
        frame.extend([0, 12, 0, 0, 1, 2, 3, 4]);
        frame
    };
    let (host, ids, other) = ([10, 0, 1, 5], [192, 0, 2, 1], [10, 0, 9, 9]);
    for (src, dst, ports, is_own) in [
        (host, ids, [50_000, 4789], true),
        (ids, host, [50_000, 4789], true),
        (ids, host, [4789, 50_000], true),
        (host, ids, [50_000, 53], false),
        (other, host, [50_000, 4789], false),
        (other, host, [4789, 50_000], false),
    ] {
        let dir = Dir::new();
        dir.add("mirror.toml", INLINE);
        let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
        let frame = datagram(src, dst, ports);
        file.extend([1_772_442_000, 0, frame.len() as u32, frame.len() as u32].map(u32::to_le_bytes).concat());
        file.extend(frame);
        dir.add("eth0.pcap", file);
        let arguments = ["eth0.pcap", "--config", "mirror.toml", "--local", "10.0.1.0/24", "--mirror-to", "out.pcap"];
        let replay = dir.replay(&arguments);
        assert_eq!(replay.count("/mirror/not-asked/own-copies"), u64::from(is_own), "{src:?} {dst:?} {ports:?}");
        let direction = if src == host { "egress" } else { "ingress" };
        let end = |address: [u8; 4], port| format!("{}:{port}", std::net::Ipv4Addr::from(address));
        let (from, to) = (end(src, ports[0]), end(dst, ports[1]));
        let ask = ["mirror", "explain", "--config", "mirror.toml", "--direction", direction, "udp", &from, &to];
        let said = dir.flowtap(&ask).success();
        assert_eq!(said.ends_with(OWN), is_own, "{said}");
        assert_eq!(said.contains("\nmirrored by session 1, rule 1, with VNI 7, to "), !is_own, "{said}");
        let may_hold_one = !is_own && ports[1] == 4789;
        assert_eq!(
            said.ends_with("\nunless a tunnel's packet is in it: a copy of a copy is never mirrored\n"),
            may_hold_one
        );
    }
}

const INLINE: &str = r#"
interface = [{ name = "eth0" }]
[mirror]
target = [{ name = "ids", address = "192.0.2.1" }]
session = [{ number = 1, interface = "eth0", target = "ids", filter = "all", vni = 7 }]
filter = [{ name = "all", rules = [
  { direction = "ingress", number = 1, action = "accept" },
  { direction = "egress", number = 1, action = "accept" },
] }]
"#;

/// A derived VNI is the same wherever it is told, and said to be derived; a replay's is another.
#[test]
fn a_vni_that_is_derived_is_told_and_explained() {
    let dir = Dir::new();
    dir.add("mirror.toml", INLINE.replace(", vni = 7", ""));
    let ask = ["mirror", "explain", "--config", "mirror.toml", "--direction", "egress", "tcp", "10.0.1.5", "192.0.2.9"];
    let json: serde_json::Value =
        serde_json::from_str(&dir.flowtap(&[&ask[..], &["--json"]].concat()).success()).unwrap();
    let vni = derived_vni(&dir);
    assert_eq!((&json["vni"], &json["vni-derived"], &json["watched"]), (&vni.into(), &true.into(), &true.into()));
    let text = dir.flowtap(&ask).success();
    assert!(text.contains(&format!("with VNI {vni} (derived from /")), "{text}");
    let check = dir.flowtap(&["check", "mirror.toml"]).success();
    assert!(check.lines().any(|line| line == format!("vni = {vni}")), "{check}");
    assert!(check.contains(&format!("\n# VNI {vni} of mirror session 1 is derived from /")), "{check}");
    dir.add_capture("demo.pcap");
    let replay =
        dir.replay(&["demo.pcap", "--config", "mirror.toml", "--mirror-to", "out.pcap", "--local", "10.0.1.0/24"]);
    // `printf 'replay\0001\0eth0\0000\0' | sha256sum` begins with 7e9ce3b9.
    let said = "mirror session 1: replays on every host have VNI 10282040, a run derives another; `vni` sets both";
    assert_eq!(replay.complaints, [said]);
}

/// As the manual page says: from the host, the session's number and its interface.
fn derived_vni(dir: &Dir) -> u32 {
    let identity = "id=$(cat /etc/machine-id 2>/dev/null); [ -n \"$id\" ] || id=$(cat /proc/sys/kernel/hostname)";
    let sum = dir.shell(&format!("{identity}; printf '%s\\0001\\0eth0\\0000\\0' \"$id\" | sha256sum")).success();
    u32::from_str_radix(&sum[..8], 16).unwrap() % 0x00ff_ffff + 1
}

#[test]
fn an_interface_that_is_not_watched_is_told() {
    let text = explain(&["tcp", "10.0.0.1:1", "10.0.0.3:2", "--direction", "ingress", "--interface", "wg0"]);
    assert!(text.contains("\nsession 5     accepts it by ingress rule 1"), "{text}");
    let said = "but a run watches wg0 only if `--interface` names it: no [[interface]] matches it\n";
    assert!(text.ends_with(said), "{text}");
}

/// A replay that can't tell any direction says what to do.
#[test]
fn a_replay_that_mirrors_nothing_for_want_of_directions_says_so() {
    let dir = Dir::new();
    dir.add("mirror.toml", INLINE);
    fs::copy(capture("demo.pcap"), dir.path("eth0.pcap")).unwrap();
    let arguments = ["eth0.pcap", "--config", "mirror.toml", "--mirror-to", "out.pcap"];
    let replay = dir.replay(&arguments);
    let [said] = &replay.complaints[..] else { panic!("{:?}", replay.complaints) };
    assert!(said.starts_with("nothing was mirrored: ") && said.contains("that of 530 packets is not known"), "{said}");
    assert!(said.contains("--local"), "{said}");
    fs::remove_file(dir.path("out.pcap")).unwrap();
    dir.replay(&[&arguments[..], &["--local", "10.0.1.0/24"]].concat()).success();
}

/// Names that only our own devices have.
#[test]
fn our_own_devices_are_not_to_be_watched() {
    let dir = Dir::new();
    for (text, name) in [
        (INLINE.replace("eth0", "flowtap-v4789"), "flowtap-v4789"),
        (INLINE.replace("\"eth0\", target", "\"flowtap-*\", target"), "flowtap-*"),
        ("interface = [{ name = \"flowtap-lab\" }]".to_owned(), "flowtap-lab"),
    ] {
        dir.add("flowtap.toml", text);
        let refusal = format!(
            "flowtap: interface `{name}` is never watched: names that begin with `flowtap-` are those of flowtap's own \
             devices; give it another name\n"
        );
        assert_text(&dir.flowtap(&["check", "flowtap.toml"]).failure(2), &refusal);
        let run = dir.flowtap(&["run", "--config", "flowtap.toml", "-o", "logs/"]).failure(2);
        assert!(run.ends_with(&refusal), "{run}");
    }
    dir.add("flowtap.toml", INLINE);
    let named = dir.flowtap(&["run", "--config", "flowtap.toml", "-i", "flowtap-lab"]).failure(2);
    assert!(named.contains("interface `flowtap-lab` is never watched"), "{named}");
    let ask =
        ["mirror", "explain", "--config", "flowtap.toml", "--direction", "egress", "tcp", "10.0.1.5", "192.0.2.9"];
    let asked = dir.flowtap(&[&ask[..], &["--interface", "flowtap-lab"]].concat()).failure(2);
    assert!(asked.contains("interface `flowtap-lab` is never watched"), "{asked}");
}

/// What `check` says of a build that can't count in the kernel.
const WITHOUT_KERNEL: &str = "kernel plane: not in this build";

/// What mirroring needs is told, and grows with targets.
#[test]
fn check_tells_the_memory_of_mirroring() {
    let dir = Dir::new();
    let needs = |text: &str| {
        dir.add("flowtap.toml", text);
        let told = dir.flowtap(&["check", "flowtap.toml"]).success();
        told.lines().filter(|line| line.contains("plane: ")).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let without = needs("interface = [{ name = \"eth0\" }]");
    assert!(!without.contains("mirror") && !without.contains("targets"), "{without}");
    let one = needs(INLINE);
    // 64 batches of 256 KiB, each with a datagram of 65535 bytes more; 32 MiB that the kernel doubles.
    assert!(one.contains(", 68 MB more for each that is mirrored (at most 256), 21 MB of copies"), "{one}");
    assert!(one.contains(WITHOUT_KERNEL) || one.contains(" MB for those of mirroring; CAP_BPF"), "{one}");
    let two = INLINE.replace("\"192.0.2.1\" }", "\"192.0.2.1\" }, { name = \"b\", address = \"192.0.2.2\" }");
    assert!(needs(&two).contains(", 42 MB of copies that wait"), "{two}");
}

/// Loopback is no card: a run would not leave checksums to it.
#[test]
fn check_sees_that_there_is_no_card() {
    let dir = Dir::new();
    dir.add("flowtap.toml", INLINE.replace("vni = 7", "vni = 7, offload = \"device\""));
    let route = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && $FLOWTAP check flowtap.toml";
    let route = dir.shell(&format!("unshare --user --map-root-user --net sh -c '{route}'"));
    if route.code != Some(0) {
        skip(&format!("no network namespace: {}", route.stderr));
        return;
    }
    if String::from_utf8_lossy(&route.stdout).contains(WITHOUT_KERNEL) {
        skip("this build has no kernel plane");
        return;
    }
    let said = "mirror session 1 has `offload = \"device\"`, but copies for ids leave by lo, which is no card; use \
                `offload = \"software\"`";
    assert!(route.stderr.contains(said), "{}", route.stderr);
}

/// The examples of the README work as they stand there.
#[test]
fn the_readme_mirrors() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, block) = readme.split_once("```toml\n").unwrap();
    let (toml, _) = block.split_once("```").unwrap();
    assert!(toml.lines().count() <= 12, "{toml}");
    let dir = Dir::new();
    dir.add("mirror.toml", toml);
    let check = dir.flowtap(&["check", "mirror.toml"]);
    assert_eq!(check.stderr, "");
    check.success();
    let explain = readme.lines().find_map(|line| line.strip_prefix("$ flowtap mirror explain ")).unwrap();
    let explained = dir.shell(&format!("$FLOWTAP mirror explain {explain}")).success();
    assert!(
        explained.contains("\nmirrored by session 1, rule 100, with VNI 4242, to ids (10.83.0.2:4789"),
        "{explained}"
    );
    fs::copy(capture("demo.pcap"), dir.path("eth0.pcap")).unwrap();
    let (_, replay) = readme.split_once("`flowtap replay eth0.pcap ").unwrap();
    let (replay, _) = replay.split_once('`').unwrap();
    let replay = dir.replay(&["eth0.pcap"].into_iter().chain(replay.split_whitespace()).collect::<Vec<_>>());
    assert!(replay.count("/mirror/sessions/0/egress/mirrored/packets") > 100, "{}", replay.ledger);
    replay.success();
}

/// Tables in one line are refused with their line, too.
#[test]
fn errors_of_inline_tables_have_their_line() {
    let dir = Dir::new();
    for (wrong, right, refusal) in [
        ("192.0.2.1", "192.0.2.256", "line 4: `192.0.2.256` is not an address of a target"),
        ("filter = \"all\"", "filter = \"al\"", "line 5: there is no mirror filter `al`, did you mean `all`?"),
        ("vni = 7", "vnl = 7", "line 5: unknown key `vnl`, did you mean `vni`?"),
        ("direction = \"egress\"", "direction = \"out\"", "line 8: `out` is not a direction"),
        (
            "direction = \"egress\", number",
            "direction = \"ingress\", number",
            "line 8: mirror filter `all` has a rule 1",
        ),
    ] {
        dir.add("flowtap.toml", INLINE.replace(wrong, right));
        let said = dir.flowtap(&["check", "flowtap.toml"]).failure(2);
        assert!(said.starts_with(&format!("flowtap: flowtap.toml: {refusal}")), "{said}");
    }
}

#[test]
fn the_same_for_programs() {
    let text = explain(&["tcp", "10.0.9.7", "10.0.1.1", "--direction", "ingress", "--interface", "eth0", "--json"]);
    let answer = |session: u16, interface: &str, filter: &str, answer: &str, rule: Option<u16>| {
        serde_json::json!({
            "session": session, "interface": interface, "filter": filter, "answer": answer, "rule": rule,
        })
    };
    let expected = serde_json::json!({
        "interface": "eth0",
        "direction": "ingress",
        "traffic-class": null,
        "own-output": false,
        "unless": null,
        "watched": true,
        "mirrored": true,
        "session": 30,
        "rule": 1,
        "vni": 78,
        "vni-derived": false,
        "targets": ["ids-1", "ids-2"],
        "sessions": [
            answer(5, "wg0", "rest", "other-interface", None),
            answer(10, "eth0", "web", "rejected", Some(100)),
            answer(20, "eth*", "dropped", "no-rule", None),
            answer(30, "eth0", "rest", "accepted", Some(1)),
        ],
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
}

#[test]
fn questions_that_make_no_sense() {
    let dir = Dir::new();
    dir.add("flowtap.toml", CONFIG);
    dir.add("none.toml", "");
    let one = CONFIG.replace("wg0", "eth0").replace("\"eth*\"\nfilter", "\"eth0\"\nfilter");
    dir.add("one.toml", one);
    let ask = |config: &str, arguments: &[&str]| {
        dir.flowtap(&[&["mirror", "explain", "--direction", "ingress", "--config", config], arguments].concat())
    };
    let tcp = ["tcp", "10.0.0.1:1", "10.0.0.3:2"];
    assert_text(&ask("flowtap.toml", &tcp).failure(2), "flowtap: say which interface with --interface\n");
    assert!(ask("one.toml", &tcp).success().starts_with("ingress tcp 10.0.0.1:1 > 10.0.0.3:2 on eth0\n"));
    for (arguments, complaint) in [
        (["tcp", "10.0.0.1:1", "10.0.0.2"], "give both ports or none"),
        (["icmp", "10.0.0.1:1", "10.0.0.2:2"], "protocol icmp has no ports"),
        (["all", "10.0.0.1", "10.0.0.2"], "a packet has one protocol, not `all`"),
        (["udp", "10.0.0.1", "2001:db8::1"], "source and destination are of different versions of IP"),
    ] {
        assert_text(&ask("one.toml", &arguments).failure(2), &format!("flowtap: {complaint}\n"));
    }
    assert_text(&ask("none.toml", &tcp).failure(2), "flowtap: none.toml: there is no [[mirror.session]]\n");
    assert!(ask("one.toml", &["tcp", "localhost:1", "10.0.0.2:2"]).failure(2).contains("write an address like"));
}

#[test]
fn check_prints_what_is_mirrored_and_says_what_is_seldom_meant() {
    let dir = Dir::new();
    let text = CONFIG.replace("number = 5\n", "number = 5\npacket-length = 128\n");
    dir.add("flowtap.toml", &text);
    let run = dir.flowtap(&["check", "flowtap.toml"]);
    assert!(run.stderr.contains("flowtap: warning: mirror session 5: `packet-length = 128` cuts"), "{}", run.stderr);
    assert!(
        run.stderr.contains("warning: mirror session 5: no interface that is watched matches `wg0`"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    let effective = run.success();
    for line in
        ["aws-parity = false", "too-big = \"fragment\"", "bits-per-second-max = \"300Mbit\"", "mode = \"replicate\""]
    {
        assert!(effective.lines().any(|found| found == line), "{line} is not in\n{effective}");
    }
    // Derived VNIs are configured ones then.
    dir.add("again.toml", &effective);
    let (derived, others): (Vec<_>, Vec<_>) = effective.lines().partition(|line| line.starts_with("# VNI "));
    assert_eq!(derived.len(), 2, "{effective}");
    let again = dir.flowtap(&["check", "again.toml"]).success();
    assert_text(&again, &others.iter().map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn rules_for_what_is_rejected_need_the_kernel_plane() {
    let dir = Dir::new();
    let rule = "mirror filter `dropped`: rule 10 has `verdict = \"rejected\"`";
    dir.add("pcap.toml", format!("capture = \"pcap\"\n{CONFIG}"));
    let refusal =
        format!("{rule}, which needs the kernel plane: `capture = \"pcap\"` doesn't see what the kernel drops\n");
    assert_text(&dir.flowtap(&["check", "pcap.toml"]).failure(2), &format!("flowtap: {refusal}"));
    assert!(dir.flowtap(&["run", "--config", "pcap.toml", "-o", "logs/"]).failure(2).contains(&refusal));
    dir.add("reasonless.toml", format!("{CONFIG}\n[kernel]\ndrop-reasons = []\n"));
    let refusal = format!("flowtap: {rule}, and `drop-reasons` names no reason: it would take nothing\n");
    assert_text(&dir.flowtap(&["check", "reasonless.toml"]).failure(2), &refusal);
    dir.add("filtered.toml", format!("filter = \"udp\"\n{CONFIG}"));
    let run = dir.flowtap(&["check", "filtered.toml"]);
    let warning = format!(
        "flowtap: warning: {rule}, which takes nothing without the kernel plane: a filter expression is run over frames"
    );
    assert!(run.stderr.lines().any(|line| line == warning), "{}", run.stderr);
    run.success();
    dir.add("flowtap.toml", CONFIG);
    let capture = capture("icmp.pcap");
    let replay = ["replay", capture.to_str().unwrap(), "--config", "flowtap.toml", "--mirror-to", "copies.pcap"];
    assert_text(
        &dir.flowtap(&replay).failure(2),
        &format!("flowtap: {rule}, and a capture doesn't show what the kernel drops: a replay can't mirror that\n"),
    );
}

#[test]
fn check_refuses_this_host_as_its_own_target() {
    let dir = Dir::new();
    dir.add("flowtap.toml", CONFIG.replace("192.0.2.1", "127.0.0.1"));
    assert_text(
        &dir.flowtap(&["check", "flowtap.toml"]).failure(2),
        "flowtap: mirror target `ids-1`: 127.0.0.1 is an address of this host, which would mirror to itself\n",
    );
}

#[test]
fn wrong_tables_are_refused_with_their_line() {
    let dir = Dir::new();
    dir.add("flowtap.toml", CONFIG.replace("filter = \"web\"", "filter = \"wep\""));
    assert_text(
        &dir.flowtap(&["check", "flowtap.toml"]).failure(2),
        "flowtap: flowtap.toml: line 37: there is no mirror filter `wep`, did you mean `web`?\n",
    );
}

/// The example is right, and is what it says.
#[test]
fn the_example_file() {
    let example = root().join("packaging/examples/mirror.toml");
    let dir = Dir::new();
    let run = dir.flowtap(&["check", example.to_str().unwrap()]);
    assert_eq!(run.stderr, "");
    run.success();
}
