//! Verdicts of a policy file: AWS's documented examples, connections across intervals, and what is never judged.
//!
//! Authority: `action` in "Flow log records", and the ping of "Flow log record examples".

use std::collections::BTreeSet;

use flowtap_tests::{Dir, Replay, assert_text, root};

const FORMAT: &str = "${srcaddr} ${packets} ${action}";

/// An interface's security group and network ACL that allow or deny ICMP, by layer and direction.
fn ping_policy(group_in: bool, group_out: bool, acl_in: bool, acl_out: bool) -> String {
    let permission = |allows: bool| if allows { "{ protocol = 'icmp', cidr = '0.0.0.0/0' }" } else { "" };
    let rule = |allows: bool| {
        let action = if allows { "allow" } else { "deny" };
        format!("{{ rule = 100, action = '{action}', protocol = 'icmp', cidr = '0.0.0.0/0' }}")
    };
    let (group_in, group_out, acl_in, acl_out) =
        (permission(group_in), permission(group_out), rule(acl_in), rule(acl_out));
    format!(
        "[[security-group]]
         name = 'group'
         interfaces = ['*']
         ingress = [{group_in}]
         egress = [{group_out}]
         [[network-acl]]
         name = 'acl'
         interfaces = ['*']
         ingress = [{acl_in}]
         egress = [{acl_out}]"
    )
}

fn ping(policy: &str, more: &[&str]) -> Replay {
    let dir = Dir::new();
    dir.add_capture("ping-matrix.pcap");
    dir.add("policy.toml", policy);
    let arguments = ["ping-matrix.pcap", "--local", "172.31.0.0/16", "--policy", "policy.toml", "-f", FORMAT];
    dir.replay(&[&arguments, more].concat())
}

/// First row: the group lets the answer to an allowed question out, the ACL does not.
#[test]
fn a_network_acl_judges_the_answer_again() {
    assert_text(
        &ping(&ping_policy(true, false, true, false), &[]).success(),
        "srcaddr packets action\n172.31.16.139 4 REJECT\n203.0.113.12 4 ACCEPT\n",
    );
}

/// Second row.
#[test]
fn a_security_group_lets_the_answer_out() {
    assert_text(
        &ping(&ping_policy(true, false, true, true), &[]).success(),
        "srcaddr packets action\n172.31.16.139 4 ACCEPT\n203.0.113.12 4 ACCEPT\n",
    );
}

/// Third row, with anything in the other columns. No answer exists where no question got in, so only questions are
/// looked at.
#[test]
fn a_question_that_the_group_denies_is_rejected_whatever_else_is_allowed() {
    for others in 0..8 {
        let [group_out, acl_in, acl_out] = [1, 2, 4].map(|bit| others & bit != 0);
        let replay = ping(&ping_policy(false, group_out, acl_in, acl_out), &["--filter", "src host 203.0.113.12"]);
        assert_eq!(replay.count("/rows/rejected"), 1);
        assert_text(&replay.success(), "srcaddr packets action\n203.0.113.12 4 REJECT\n");
    }
}

#[test]
fn without_a_policy_everything_captured_is_accepted() {
    let dir = Dir::new();
    dir.add_capture("ping-matrix.pcap");
    let log = dir.replay(&["ping-matrix.pcap", "-f", FORMAT]).success();
    assert_text(&log, "srcaddr packets action\n172.31.16.139 4 ACCEPT\n203.0.113.12 4 ACCEPT\n");
}

/// Whose direction is not known can't be judged: it passes, and is counted.
#[test]
fn a_flow_without_a_direction_passes_unjudged() {
    let dir = Dir::new();
    dir.add_capture("ping-matrix.pcap");
    dir.add("policy.toml", ping_policy(false, false, false, false));
    let replay = dir.replay(&["ping-matrix.pcap", "--policy", "policy.toml", "-f", FORMAT]);
    assert_eq!(replay.count("/policy/unjudged"), 2);
    assert_text(&replay.success(), "srcaddr packets action\n172.31.16.139 4 ACCEPT\n203.0.113.12 4 ACCEPT\n");
}

#[test]
fn rows_are_selected_by_their_action() {
    let policy = ping_policy(true, false, true, false);
    for (selection, row, left_out) in [
        ("accept", "203.0.113.12 4 ACCEPT\n", "/omitted-packets/reject"),
        ("reject", "172.31.16.139 4 REJECT\n", "/omitted-packets/accept"),
    ] {
        let replay = ping(&policy, &["--traffic", selection]);
        assert_eq!((replay.count(left_out), replay.sum("/omitted-packets")), (4, 4));
        assert_text(&replay.success(), &format!("srcaddr packets action\n{row}"));
    }
    assert_eq!(ping(&policy, &["--traffic", "all"]).sum("/omitted-packets"), 0);
}

/// Verdicts on `policy-tcp.pcap`, each row as `source port, destination port, protocol, packets, action`.
fn connections(policy: &str) -> BTreeSet<String> {
    let dir = Dir::new();
    dir.add_capture("policy-tcp.pcap");
    dir.add("policy.toml", policy);
    let format = "${srcport} ${dstport} ${protocol} ${packets} ${action}";
    let log =
        dir.replay(&["policy-tcp.pcap", "--local", "10.0.1.10", "--policy", "policy.toml", "-f", format]).success();
    log.lines().skip(1).map(str::to_owned).collect()
}

/// Opened from outside: 51001, 51004 and 51006, the last two answered an interval later. Only ingress is allowed, so
/// what was opened from here (51002, 51005, 51007) passes in neither direction.
#[test]
fn connections_opened_from_outside_are_let_in_across_intervals() {
    let policy = "
        [[security-group]]
        name = 'server'
        interfaces = ['policy-tcp']
        ingress = [{ protocol = 'tcp', ports = 443, cidr = '203.0.113.0/24' },
                   { protocol = 'udp', ports = '4000-5000', cidr = '0.0.0.0/0' }]";
    let expected = [
        "51001 443 6 6 ACCEPT",
        "443 51001 6 4 ACCEPT",
        "51002 443 6 6 REJECT",
        "443 51002 6 4 REJECT",
        "51003 23 6 3 REJECT",
        "51004 443 6 1 ACCEPT",
        "443 51004 6 1 ACCEPT",
        "51005 443 6 1 REJECT",
        "443 51005 6 1 REJECT",
        "51006 4433 17 1 ACCEPT",
        "4433 51006 17 1 ACCEPT",
        "51007 4433 17 1 REJECT",
        "4433 51007 17 1 REJECT",
    ];
    assert_eq!(connections(policy), expected.map(str::to_owned).into());
}

/// The same the other way round.
#[test]
fn connections_opened_from_here_are_let_out_across_intervals() {
    let policy = "
        [[security-group]]
        name = 'client'
        interfaces = ['policy-*']
        egress = [{ protocol = 'tcp', ports = 443, cidr = '198.51.100.80' },
                  { protocol = 'udp', cidr = '0.0.0.0/0' }]";
    let expected = [
        "51001 443 6 6 REJECT",
        "443 51001 6 4 REJECT",
        "51002 443 6 6 ACCEPT",
        "443 51002 6 4 ACCEPT",
        "51003 23 6 3 REJECT",
        "51004 443 6 1 REJECT",
        "443 51004 6 1 REJECT",
        "51005 443 6 1 ACCEPT",
        "443 51005 6 1 ACCEPT",
        "51006 4433 17 1 REJECT",
        // An answer that nobody is known to have asked for is judged as if its sender had asked.
        "4433 51006 17 1 ACCEPT",
        "51007 4433 17 1 ACCEPT",
        "4433 51007 17 1 ACCEPT",
    ];
    assert_eq!(connections(policy), expected.map(str::to_owned).into());
}

/// A policy is for the interfaces that it names.
#[test]
fn other_interfaces_are_not_filtered() {
    let verdicts = connections("[[security-group]]\nname = 'nobody'\ninterfaces = ['eth*']");
    assert!(verdicts.iter().all(|row| row.ends_with(" ACCEPT")), "{verdicts:#?}");
}

/// The services that neither layer filters. Mirrored copies are traffic like any other.
#[test]
fn skipped_classes_are_never_rejected() {
    let policy = "
        [[security-group]]
        name = 'closed'
        interfaces = ['*']
        [[network-acl]]
        name = 'closed'
        interfaces = ['*']";
    for (capture, host) in [("services-v4.pcap", "10.0.1.0/24"), ("services-v6.pcap", "2001:db8:1:1::/64")] {
        let dir = Dir::new();
        dir.add_capture(capture);
        dir.add("policy.toml", policy);
        let networks = ["--vpc-cidr", "10.0.0.0/16", "--subnet-cidr", host];
        // The host's own addresses, IPv4, global, and link-local.
        let local = ["10.0.1.10", "0.0.0.0", "2001:db8:1:1::10", "fe80::aff:fe00:10a"];
        let local: Vec<&str> = local.iter().flat_map(|address| ["--local", address]).collect();
        let arguments = [capture, "--policy", "policy.toml", "-f", "${x-traffic-class} ${action}"];
        let log = dir.replay(&[&arguments, &networks[..], &local[..]].concat()).success();
        let verdicts: BTreeSet<&str> = log.lines().skip(1).collect();
        let expected = [
            "- REJECT",
            "activation ACCEPT",
            "dhcp ACCEPT",
            "dns ACCEPT",
            "metadata ACCEPT",
            "mirror REJECT",
            "router ACCEPT",
            "time ACCEPT",
        ];
        assert_eq!(verdicts, expected.into(), "{capture}");
    }
}

/// The example that the demo points to: the first row of the matrix.
#[test]
fn the_example_policy_is_sound() {
    let example = std::fs::read_to_string(root().join("packaging/examples/ping-policy.toml")).unwrap();
    assert_text(
        &ping(&example, &[]).success(),
        "srcaddr packets action\n172.31.16.139 4 REJECT\n203.0.113.12 4 ACCEPT\n",
    );
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_its_line() {
    for (policy, complaint) in [
        (
            "[[security-grup]]\nname = 'x'",
            "policy.toml: line 1: unknown key `security-grup`, did you mean `security-group`?",
        ),
        (
            "[[security-group]]\nname = 'a'\ninterfaces = ['*']\n[[security-group]]\nname = 'a'\ninterfaces = ['*']",
            "policy.toml: line 5: there is already a security group `a`",
        ),
        ("[[network-acl]]\nname = 'a'\ninterfaces = []", "policy.toml: line 2: `a` names no interface"),
    ] {
        let dir = Dir::new();
        dir.add_capture("ping-matrix.pcap");
        dir.add("policy.toml", policy);
        let run = dir.flowtap(&["replay", "ping-matrix.pcap", "--policy", "policy.toml"]);
        assert!(run.stdout.is_empty());
        assert_text(&run.failure(2), &format!("flowtap: {complaint}\n"));
    }
}
