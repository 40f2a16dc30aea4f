//! Mirror tables: what they come to, and what is refused.

use std::net::IpAddr;
use std::num::NonZeroU64;

use crate::capture::Direction;
use crate::config::{Flags, RawConfig, Settings};
use crate::mirror::{
    Encapsulation, Mirror, Mode, Offload, Question, RuleAction, Service, TooBig, Verdict, Vni, Warning,
};

fn mirror(text: &str) -> Mirror {
    Settings::new(Some(RawConfig::parse(text).unwrap()), Flags::default()).unwrap().mirror
}

fn refusal(text: &str) -> String {
    RawConfig::parse(text).unwrap_err().to_string()
}

/// As the README tells it.
const FIRST: &str = r#"[[interface]]
name = "eth0"

[[mirror.target]]
name = "ids"
address = "10.83.0.2"        # port 4789, VXLAN

[[mirror.filter]]
name = "all-tcp"
rules = [
  { direction = "ingress", number = 100, action = "accept", protocol = "tcp", source = "0.0.0.0/0", destination = "0.0.0.0/0" },
  { direction = "egress",  number = 100, action = "accept", protocol = "tcp", source = "0.0.0.0/0", destination = "0.0.0.0/0" },
]

[[mirror.session]]
number = 1
interface = "eth0"
target = "ids"
filter = "all-tcp"
vni = 4242
"#;

#[test]
fn the_first_example_and_its_defaults() {
    let mirror = mirror(FIRST);
    let [target] = mirror.targets() else { panic!("{mirror:?}") };
    assert_eq!((target.name.as_str(), target.address, target.port.get()), ("ids", IpAddr::from([10, 83, 0, 2]), 4789));
    assert_eq!((target.encapsulation, target.weight.number().get()), (Encapsulation::Vxlan, 1));
    assert_eq!(target.health_check, None);

    let [session] = mirror.sessions() else { panic!("{mirror:?}") };
    assert_eq!((session.number.number(), session.interface.as_str()), (1, "eth0"));
    assert_eq!((session.vni, session.packet_length, session.description.as_deref()), (Vni::new(4242), None, None));
    assert_eq!((session.mode, session.too_big, session.offload), (Mode::Balance, TooBig::Fragment, Offload::Software));
    assert_eq!(session.rate.packets.per_second(), NonZeroU64::new(25_000));
    assert_eq!(session.rate.bits.per_second(), NonZeroU64::new(300_000_000));
    assert_eq!(mirror.targets_of(session).collect::<Vec<_>>(), [(0, target)]);

    for direction in [Direction::Ingress, Direction::Egress] {
        let [rule] = session.filter.rules(direction) else { panic!("{session:?}") };
        assert_eq!((rule.number().number(), rule.action()), (100, RuleAction::Accept));
        let criteria = rule.criteria();
        assert_eq!(criteria.protocol.number(), Some(6));
        assert_eq!(criteria.source, Some("0.0.0.0/0".parse().unwrap()));
        assert_eq!((criteria.source_ports, criteria.service, criteria.verdict), (None, None, None));
    }
    assert!(session.filter.rules(Direction::Unknown).is_empty());
}

/// A filter with these rules, each on its own line from line 4 on.
fn filter(rules: &[&str]) -> String {
    format!(
        "[[mirror.filter]]\nname = 'f'\nrules = [\n{}]\n",
        rules.iter().map(|rule| format!("  {{ {rule} }},\n")).collect::<String>()
    )
}

#[test]
fn rules_in_full() {
    let text = filter(&[
        "direction = 'egress', number = 200, action = 'reject', protocol = 17, source = '10.0.0.0/8', \
         source-ports = '1024-2048', destination-ports = 53, description = 'no DNS'",
        "number = 5, action = 'accept', service = 'metadata'",
        "direction = 'egress', number = 32766, action = 'accept', verdict = 'rejected', destination = '2001:db8::1'",
    ]);
    let mirror = mirror(&text);
    let [filter] = mirror.filters() else { panic!("{mirror:?}") };
    let egress: Vec<u16> = filter.rules(Direction::Egress).iter().map(|rule| rule.number().number()).collect();
    let ingress: Vec<u16> = filter.rules(Direction::Ingress).iter().map(|rule| rule.number().number()).collect();
    assert_eq!((ingress, egress), (vec![5], vec![5, 200, 32_766]), "a service without a direction is for both");
    let [service, udp, rejected] = filter.rules(Direction::Egress) else { panic!("{filter:?}") };
    assert_eq!(service.criteria().service, Some(Service::Metadata));
    assert_eq!((udp.action(), udp.description()), (RuleAction::Reject, Some("no DNS")));
    let criteria = udp.criteria();
    assert_eq!((criteria.protocol.number(), criteria.destination), (Some(17), None));
    let ports = [criteria.source_ports, criteria.destination_ports].map(|ports| ports.unwrap().to_string());
    assert_eq!(ports, ["1024-2048", "53"]);
    assert_eq!(rejected.criteria().verdict, Some(Verdict::Rejected));
    assert_eq!(rejected.criteria().destination, Some("2001:db8::1/128".parse().unwrap()));
}

#[test]
fn rules_that_can_not_be() {
    let rule = |rule: &str| refusal(&filter(&["direction = 'ingress', number = 9, action = 'accept'", rule]));
    for (text, expected) in [
        ("direction = 'ingress', number = 9, action = 'reject'", "mirror filter `f` has a rule 9 for ingress already"),
        ("number = 9, action = 'reject', service = 'dns'", "mirror filter `f` has a rule 9 for ingress already"),
        ("number = 10, action = 'accept'", "rule 10 needs `direction`: only a rule with `service` may be for both"),
        (
            "direction = 'egress', number = 1, action = 'accept', source-ports = 80",
            "rule 1: ports need `protocol = \"tcp\"` or \"udp\", not all",
        ),
        (
            "direction = 'egress', number = 1, action = 'accept', protocol = 'icmp', destination-ports = 8",
            "rule 1: ports need `protocol = \"tcp\"` or \"udp\", not icmp",
        ),
        (
            "direction = 'egress', number = 1, action = 'accept', source = '10.0.0.0/8', destination = '::/0'",
            "rule 1: source 10.0.0.0/8 and destination ::/0 are of different versions of IP",
        ),
        (
            "direction = 'egress', number = 0, action = 'accept'",
            "`0` is not a rule number: write a number from 1 to 32766",
        ),
        (
            "direction = 'egress', number = 32767, action = 'accept'",
            "`32767` is not a rule number: write a number from 1 to 32766",
        ),
        ("direction = 'out', number = 1, action = 'accept'", "`out` is not a direction: write `ingress` or `egress`"),
        (
            "direction = 'egress', number = 1, action = 'allow'",
            "`allow` is not an action of a rule: write `accept` or `reject`",
        ),
        (
            "direction = 'egress', number = 1, action = 'accept', service = 'ntp'",
            "`ntp` is not a network service: write `dns`, `dhcp`, `metadata`, `time` or `activation`",
        ),
        (
            "direction = 'egress', number = 1, action = 'accept', verdict = 'accepted'",
            "`accepted` is not a verdict: write `rejected`, or leave the key out",
        ),
        ("direction = 'egress', number = 1, action = 'accept', port = 80", "unknown key `port`, known here: "),
        (
            "direction = 'egress', number = 1, action = 'accept', source-port = 80",
            "unknown key `source-port`, did you mean `source-ports`?",
        ),
        ("direction = 'egress', number = 1", "missing field `action`"),
    ] {
        let refused = rule(text);
        assert!(refused.starts_with(&format!("line 5: {expected}")), "{text}: {refused}");
    }
}

#[test]
fn targets_that_can_not_be() {
    let target = |keys: &str| refusal(&format!("[[mirror.target]]\nname = 'ids'\n{keys}\n"));
    for (keys, expected) in [
        ("address = 'ids.example'", "`ids.example` is not an address of a target: write an IPv4 or IPv6 address"),
        ("address = '0.0.0.0'", "`0.0.0.0` is not an address of a target: it must be that of one host"),
        ("address = '239.1.1.1'", "`239.1.1.1` is not an address of a target: it must be that of one host"),
        ("address = '255.255.255.255'", "`255.255.255.255` is not an address of a target: it must be that of one host"),
        ("address = 'ff02::1'", "`ff02::1` is not an address of a target: it must be that of one host"),
        (
            "address = 'fe80::1'",
            "`fe80::1` is not an address of a target: a link-local one does not say by which interface it is reached",
        ),
        ("adress = '10.0.0.1'", "unknown key `adress`, did you mean `address`?"),
        ("address = '10.0.0.1'\nport = 0", "`0` is not a port: write a number from 1 to 65535"),
        ("address = '10.0.0.1'\nencapsulation = 'gre'", "`gre` is not an encapsulation: write `vxlan` or `geneve`"),
        ("address = '10.0.0.1'\nweight = 1001", "`1001` is not a weight: write a number from 1 to 1000"),
        (
            "address = '10.0.0.1'\nhealth-check = { protocol = 'tcp', port = 22, path = '/' }",
            "only a health check with `protocol = \"http\"` has a path",
        ),
        (
            "address = '10.0.0.1'\nhealth-check = { protocol = 'tcp', port = 22, timeout = '11s' }",
            "a health check's timeout can't be longer than its interval",
        ),
        (
            "address = '10.0.0.1'\nhealth-check = { protocol = 'http', port = 80, path = 'up' }",
            "`up` is not a path: write it like `/health`, without spaces, at most 1024 bytes",
        ),
        (
            "address = '10.0.0.1'\nhealth-check = { protocol = 'http', port = 80, interval = '0s' }",
            "`0s` is not a time of a health check: write `1s` to `300s`",
        ),
        (
            "address = '10.0.0.1'\nhealth-check = { protocol = 'http', port = 80, healthy-threshold = 11 }",
            "`11` is not a number of answers: write a number from 1 to 10",
        ),
    ] {
        let line = 2 + keys.lines().count();
        assert_eq!(target(keys), format!("line {line}: {expected}"));
    }
    assert_eq!(
        refusal("[[mirror.target]]\nname = 'my ids'\naddress = '10.0.0.1'"),
        "line 2: `my ids` is not a name: write 1 to 64 letters, digits, `-`, `_` and `.`"
    );
    let twice = "[[mirror.target]]\nname = 'ids'\naddress = '10.0.0.1'\n".repeat(2);
    assert_eq!(refusal(&twice), "line 5: there is already a mirror target `ids`");
}

#[test]
fn health_checks_in_full_and_by_default() {
    let check = |keys: &str| {
        let text = format!(
            "[[mirror.target]]\nname = 'ids'\naddress = '::ffff:10.0.0.1'\nencapsulation = 'geneve'\nhealth-check = {{ {keys} }}"
        );
        let mirror = mirror(&text);
        assert_eq!(mirror.targets()[0].address, IpAddr::from([10, 0, 0, 1]), "an IPv4 address, however it is written");
        assert_eq!(mirror.targets()[0].port.get(), 6081);
        mirror.targets()[0].health_check.clone().unwrap()
    };
    let tcp = check("protocol = 'tcp', port = 22");
    assert_eq!((tcp.question, tcp.port.get()), (Question::Tcp, 22));
    assert_eq!((tcp.interval.as_secs(), tcp.timeout.as_secs()), (10, 2));
    assert_eq!((tcp.healthy_threshold.count(), tcp.unhealthy_threshold.count()), (3, 3));
    let http = check("protocol = 'http', port = 80, interval = '1s', healthy-threshold = 1, unhealthy-threshold = 10");
    assert_eq!(http.question, Question::Http("/".parse().unwrap()));
    assert_eq!((http.interval.as_secs(), http.timeout.as_secs()), (1, 1), "no longer than the interval");
    assert_eq!((http.healthy_threshold.count(), http.unhealthy_threshold.count()), (1, 10));
}

/// Two targets and two filters, and sessions from line 13 on.
fn sessions(text: &str) -> String {
    format!(
        "[[mirror.target]]\nname = 'ids-1'\naddress = '10.0.0.1'\n\
         [[mirror.target]]\nname = 'ids-2'\naddress = '2001:db8::1'\n\
         [[mirror.filter]]\nname = 'v4'\n\
         rules = [{{ direction = 'egress', number = 1, action = 'accept', source = '0.0.0.0/0' }}]\n\
         [[mirror.filter]]\nname = 'any'\n\
         rules = [{{ direction = 'egress', number = 1, action = 'accept' }}]\n{text}"
    )
}

#[test]
fn sessions_that_can_not_be() {
    for (keys, line, expected) in [
        ("target = 'idz-1'\nfilter = 'v4'", 16, "there is no mirror target `idz-1`, did you mean `ids-1`?"),
        ("target = 'x'\nfilter = 'v4'", 16, "there is no mirror target `x`, known here: `ids-1`, `ids-2`"),
        ("target = 'ids-1'\nfilter = 'v6'", 17, "there is no mirror filter `v6`, known here: `v4`, `any`"),
        ("filter = 'v4'", 14, "session 7 needs either `target` or a list of `targets`"),
        ("targets = []\nfilter = 'v4'", 14, "session 7 needs either `target` or a list of `targets`"),
        (
            "target = 'ids-1'\ntargets = ['ids-1']\nfilter = 'v4'",
            14,
            "session 7 needs either `target` or a list of `targets`",
        ),
        ("targets = [\n'ids-1',\n'ids-1']\nfilter = 'v4'", 18, "`ids-1` is a target of session 7 already"),
        (
            "target = 'ids-1'\nfilter = 'v4'\npacket-length = 34",
            18,
            "`34` is not a packet length: write a number of bytes from 35 on",
        ),
        (
            "target = 'ids-1'\nfilter = 'any'\npacket-length = 54",
            18,
            "a packet length of 54 leaves nothing of IPv6, which filter `any` takes: write 55 or more",
        ),
        (
            "target = 'ids-2'\nfilter = 'v4'\npacket-length = 128",
            18,
            "frames can't be cut on their way to `ids-2`, which has an IPv6 address: leave out `packet-length`",
        ),
        (
            "target = 'ids-1'\nfilter = 'v4'\nvni = 16777216",
            18,
            "`16777216` is not a VNI: write a number from 0 to 16777215",
        ),
        (
            "target = 'ids-1'\nfilter = 'v4'\nmode = 'copy'",
            18,
            "`copy` is not a mode of a session: write `balance` or `replicate`",
        ),
        (
            "target = 'ids-1'\nfilter = 'v4'\ntoo-big = 'cut'",
            18,
            "`cut` is not a treatment of what is too big: write `fragment` or `skip`",
        ),
        (
            "target = 'ids-1'\nfilter = 'v4'\noffload = 'on'",
            18,
            "`on` is not an offload: write `software`, `device` or `auto`",
        ),
        ("target = 'ids-1'\nfilter = 'v4'\nxyz = 1", 18, "unknown key `xyz`, known here: "),
        ("target = 'ids-1'\nfilter = 'v4'\ntoobig = 'skip'", 18, "unknown key `toobig`, did you mean `too-big`?"),
    ] {
        let refused = refusal(&sessions(&format!("[[mirror.session]]\nnumber = 7\ninterface = 'eth*'\n{keys}\n")));
        assert!(refused.starts_with(&format!("line {line}: {expected}")), "{keys}: {refused}");
    }
    assert_eq!(
        refusal("[[mirror.session]]\nnumber = 1\ninterface = '*'\ntarget = 'ids'\nfilter = 'x'\n"),
        "line 4: there is no mirror target `ids`"
    );
    assert_eq!(
        refusal("[[mirror.session]]\nnumber = 32767\n"),
        "line 2: `32767` is not a session number: write a number from 1 to 32766"
    );
    for shortest in
        ["target = 'ids-1'\nfilter = 'v4'\npacket-length = 35", "target = 'ids-1'\nfilter = 'any'\npacket-length = 55"]
    {
        let mirror = mirror(&sessions(&format!("[[mirror.session]]\nnumber = 7\ninterface = 'eth*'\n{shortest}\n")));
        assert!(mirror.sessions()[0].packet_length.is_some());
    }
}

fn session(number: u16, interface: &str) -> String {
    format!("[[mirror.session]]\nnumber = {number}\ninterface = '{interface}'\nfilter = 'v4'\ntarget = 'ids-1'\n")
}

#[test]
fn a_number_is_taken_once_on_any_interface() {
    let two = |one: &str, other: &str| RawConfig::parse(&sessions(&(session(7, one) + &session(7, other))));
    assert!(two("eth0", "eth1").is_ok() && two("eth?", "wg*").is_ok());
    for (one, other) in [("eth0", "eth0"), ("eth*", "eth0"), ("eth*", "*0")] {
        assert_eq!(
            two(one, other).unwrap_err().to_string(),
            format!("line 19: there is already a session 7 for interfaces that match both `{other}` and `{one}`")
        );
    }
}

#[test]
fn sessions_are_asked_in_the_order_of_their_numbers() {
    let text = sessions(&(session(9, "eth*") + &session(3, "*") + &session(5, "eth0") + &session(1, "lo")));
    let numbers = |name: &str| {
        mirror(&text).sessions_of(name).iter().map(|(at, each)| (*at, each.number.number())).collect::<Vec<_>>()
    };
    assert_eq!(numbers("eth0"), [(1, 3), (2, 5), (0, 9)]);
    assert_eq!(numbers("lo"), [(3, 1), (1, 3)]);
}

#[test]
fn everything_has_a_bound() {
    let targets = |count: usize| {
        (0..count).map(|at| format!("[[mirror.target]]\nname = 't{at}'\naddress = '10.0.0.1'\n")).collect::<String>()
    };
    assert_eq!(mirror(&targets(64)).targets().len(), 64);
    assert_eq!(refusal(&targets(65)), "line 194: there can be at most 64 mirror targets");
    let filters =
        |count: usize| (0..count).map(|at| format!("[[mirror.filter]]\nname = 'f{at}'\n")).collect::<String>();
    assert_eq!(refusal(&filters(65)), "line 130: there can be at most 64 mirror filters");
    let many = |count: u16| sessions(&(1..=count).map(|number| session(number, "lo")).collect::<String>());
    assert_eq!(mirror(&many(64)).sessions().len(), 64);
    assert_eq!(refusal(&many(65)), "line 334: there can be at most 64 mirror sessions");
}

/// Filters `a` and `b` of 200 and 100 egress rules, and sessions from line 312 on.
fn long_filters(patterns: &[(&str, &str)]) -> String {
    let rules = |count: u16| {
        (1..=count)
            .map(|number| format!("{{ direction = 'egress', number = {number}, action = 'accept' }},\n"))
            .collect::<String>()
    };
    let mut text = "[[mirror.target]]\nname = 'ids'\naddress = '10.0.0.1'\n".to_owned();
    text += &format!("[[mirror.filter]]\nname = 'a'\nrules = [\n{}]\n", rules(200));
    text += &format!("[[mirror.filter]]\nname = 'b'\nrules = [\n{}]\n", rules(100));
    for (number, (pattern, filter)) in patterns.iter().enumerate() {
        text += &format!(
            "[[mirror.session]]\nnumber = {}\ninterface = '{pattern}'\nfilter = '{filter}'\ntarget = 'ids'\n",
            number + 1
        );
    }
    text
}

#[test]
fn the_rules_of_one_interface_fit_into_one_list() {
    for apart in [[("eth0", "a"), ("eth1", "b")], [("eth*", "a"), ("wg?", "b")], [("lo", "b"), ("*", "b")]] {
        assert!(RawConfig::parse(&long_filters(&apart)).is_ok(), "{apart:?}");
    }
    // Each name has at most two of them, though the last overlaps with all.
    let one_name_each = [("eth0", "b"), ("eth1", "b"), ("eth2", "b"), ("eth*", "b")];
    assert!(RawConfig::parse(&long_filters(&one_name_each)).is_ok());
    for together in [[("eth0", "a"), ("eth*", "b")], [("eth*", "a"), ("*0", "b")], [("eth0", "a"), ("eth0", "b")]] {
        assert_eq!(
            refusal(&long_filters(&together)),
            "line 318: with session 2, 300 egress rules may apply to one interface together, at most 256 can"
        );
    }
}

#[test]
fn what_aws_never_mirrors_has_no_rule_under_parity() {
    let parity = |rule: &str| RawConfig::parse(&format!("aws-parity = true\n{}", filter(&[rule])));
    for service in ["dhcp", "metadata", "time", "activation"] {
        let rule = format!("number = 1, action = 'accept', service = '{service}'");
        assert!(RawConfig::parse(&filter(&[&rule])).is_ok());
        let expected = format!("line 5: with `aws-parity`, `{service}` is never mirrored");
        assert_eq!(parity(&rule).unwrap_err().to_string(), expected);
    }
    assert!(parity("number = 1, action = 'accept', service = 'dns'").is_ok());
    let rejected =
        parity("direction = 'ingress', number = 1, action = 'accept', verdict = 'rejected'").unwrap_err().to_string();
    assert_eq!(rejected, "line 5: with `aws-parity`, packets that are rejected are never mirrored");
}

#[test]
fn what_should_be_said() {
    let warnings = |text: &str, watched: &[&str]| {
        let watched: Vec<_> = watched.iter().map(|glob| glob.parse().unwrap()).collect();
        mirror(text).warnings(&watched)
    };
    assert_eq!(warnings(FIRST, &["eth*"]), []);
    let not_watched = "mirror session 1: no interface that is watched matches `eth0`, so nothing is mirrored";
    assert_eq!(warnings(FIRST, &["lo"]).iter().map(ToString::to_string).collect::<Vec<_>>(), [not_watched]);
    let cut = warnings(&format!("{FIRST}packet-length = 128\n"), &["*"]);
    assert!(matches!(&cut[..], [Warning::CutFrames { .. }]), "{cut:?}");
    let said = cut[0].to_string();
    assert!(["Suricata", "Zeek", "Snort", "without a word", "128"].iter().all(|word| said.contains(word)), "{said}");
    let nothing = warnings(&FIRST.replace("accept", "reject"), &["*"]);
    let expected = "mirror session 1: filter `all-tcp` accepts nothing, so nothing is mirrored";
    assert_eq!(nothing.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_host_is_not_its_own_target() {
    let refused = |address: &str, host: &[&str]| {
        let host: Vec<IpAddr> = host.iter().map(|address| address.parse().unwrap()).collect();
        mirror(&FIRST.replace("10.83.0.2", address)).check_host(&host).map_err(|error| error.to_string())
    };
    assert_eq!(refused("10.83.0.2", &["10.83.0.1", "2001:db8::1"]), Ok(()));
    let own = |address: &str| {
        Err(format!("mirror target `ids`: {address} is an address of this host, which would mirror to itself"))
    };
    assert_eq!(refused("10.83.0.2", &["10.83.0.1", "10.83.0.2"]), own("10.83.0.2"));
    assert_eq!(refused("2001:db8::1", &["2001:db8::1"]), own("2001:db8::1"));
    assert_eq!(refused("127.0.0.5", &[]), own("127.0.0.5"));
    // A target that no session uses gets nothing.
    let unused = mirror("[[mirror.target]]\nname = 'ids'\naddress = '10.0.0.1'\n");
    assert_eq!(unused.check_host(&["10.0.0.1".parse().unwrap()]), Ok(()));
}

#[test]
fn every_session_has_a_vni_of_its_own_unless_told_otherwise() {
    let text = sessions(&(session(1, "eth0") + "vni = 7\n" + &session(2, "eth0") + &session(3, "eth0") + "vni = 7\n"));
    let vnis = mirror(&text).vnis("host");
    let derived = |attempt| Vni::derived("host", "2".parse().unwrap(), "eth0", attempt);
    assert_eq!(vnis, [Vni::new(7).unwrap(), derived(0), Vni::new(7).unwrap()]);
    assert_ne!(mirror(&text).vnis("other host")[1], vnis[1]);
    // Where the identifier is another session's already, the next is taken.
    let taken = text.replace("vni = 7", &format!("vni = {}", derived(0)));
    assert_eq!(mirror(&taken).vnis("host")[1], derived(1));
}

#[test]
fn a_rule_that_takes_what_is_dropped_is_found() {
    let text = FIRST.replacen("{ direction = \"ingress\"", "{ verdict = \"rejected\", direction = \"ingress\"", 1);
    assert_ne!(text, FIRST);
    let rule = mirror(&text).drop_rule().unwrap();
    assert_eq!(rule.to_string(), "mirror filter `all-tcp`: rule 100 has `verdict = \"rejected\"`");
    assert_eq!(mirror(FIRST).drop_rule(), None);
    // One that takes nothing needs no copies.
    let refusing = text.replace("action = \"accept\"", "action = \"reject\"");
    assert_ne!(refusing, text);
    assert_eq!(mirror(&refusing).drop_rule(), None);
}
