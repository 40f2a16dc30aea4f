//! Traffic mirroring as its configuration tells it: `flowtap mirror explain` and `flowtap check`.

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
         session 5     is for interfaces that match `wg0`\n\
         session 10    accepts it by ingress rule 200 of filter `web`: accept tcp from any to any ports 80-443\n\
         session 20    is not asked\n\
         session 30    is not asked\n\
         mirrored by session 10, rule 200, to one of ids-1 (192.0.2.1:4789, vxlan), \
         ids-2 ([2001:db8::2]:6081, geneve)\n",
    );
}

#[test]
fn why_the_sessions_before_it_do_not() {
    assert_text(
        &explain(&["tcp", "10.0.9.7:40000", "10.0.1.1:443", "--direction", "ingress", "--interface", "eth0"]),
        "ingress tcp 10.0.9.7:40000 > 10.0.1.1:443 on eth0\n\
         session 5     is for interfaces that match `wg0`\n\
         session 10    rejects it by ingress rule 100 of filter `web`: reject tcp from 10.0.9.0/24 to any \
         (the backup net)\n\
         session 20    has no ingress rule for it in filter `dropped`\n\
         session 30    accepts it by ingress rule 1 of filter `rest`: accept all from any to any\n\
         mirrored by session 30, rule 1, to ids-1 (192.0.2.1:4789, vxlan), ids-2 ([2001:db8::2]:6081, geneve)\n",
    );
}

#[test]
fn a_packet_that_nobody_takes() {
    assert_text(
        &explain(&["icmpv6", "2001:db8::9", "2001:db8::1", "--direction", "egress", "--interface", "eth1"]),
        "egress icmpv6 2001:db8::9 > 2001:db8::1 on eth1\n\
         session 5     is for interfaces that match `wg0`\n\
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
    assert!(dropped.ends_with("mirrored by session 20, rule 10, to ids-2 ([2001:db8::2]:6081, geneve)\n"), "{dropped}");

    let own = ["udp", "10.0.1.1:50000", "192.0.2.1:4789", "--direction", "egress", "--interface", "eth0"];
    let text = explain(&own);
    assert!(text.contains("session 30    accepts it by egress rule 1"), "{text}");
    assert!(
        text.ends_with("not mirrored: it goes to a target's address and port, so it is a copy of our own\n"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&explain(&[&own[..], &["--json"]].concat())).unwrap();
    assert_eq!((&json["own-output"], &json["mirrored"], &json["session"]), (&true.into(), &false.into(), &().into()));
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
        "mirrored": true,
        "session": 30,
        "rule": 1,
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
    dir.add("again.toml", &effective);
    assert_text(&dir.flowtap(&["check", "again.toml"]).success(), &effective);
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
