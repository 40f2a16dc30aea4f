//! The policy as a whole: AWS's documented examples, state across intervals, bounds, and a plain model.

use std::collections::HashMap;

use flowlog::record::Action::{Accept, Reject};
use proptest::prelude::*;

use super::*;
use crate::capture::Direction::{Egress, Ingress, Unknown};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const SECOND: u64 = 1_000_000_000;

/// A flow at whole seconds, written like a tcpdump line.
fn flow(direction: Direction, protocol: u8, from: (&str, u16), to: (&str, u16), first_secs: u64) -> FlowView {
    FlowView {
        interface: 0,
        direction,
        src: from.0.parse().unwrap(),
        dst: to.0.parse().unwrap(),
        src_port: from.1,
        dst_port: to.1,
        protocol,
        class: None,
        first: Timestamp(first_secs * SECOND),
        last: Timestamp((first_secs + 1) * SECOND),
    }
}

/// The policy, bound to `eth0` as interface 0.
fn policy(text: &str) -> Policy {
    let mut policy = Policy::parse(text).unwrap();
    policy.bind(0, "eth0").unwrap();
    policy
}

/// One interval: its flows in, their actions out.
fn judge(policy: &mut Policy, flows: &[FlowView]) -> Vec<Action> {
    let mut observing = policy.begin_interval();
    for flow in flows {
        observing.observe(flow);
    }
    let settled = observing.settle();
    flows.iter().map(|flow| settled.verdict(flow)).collect()
}

fn group(ingress: &str, egress: &str) -> String {
    format!("[[security-group]]\nname = 'g'\ninterfaces = ['eth*']\ningress = [{ingress}]\negress = [{egress}]\n")
}

fn acl(ingress: &str, egress: &str) -> String {
    format!("[[network-acl]]\nname = 'a'\ninterfaces = ['eth0']\ningress = [{ingress}]\negress = [{egress}]\n")
}

const ANY: &str = "{ protocol = 'all', cidr = '0.0.0.0/0' }";
const ANY_V6: &str = "{ protocol = 'all', cidr = '::/0' }";
const ALLOW_ANY: &str = "{ rule = 100, action = 'allow', protocol = 'all', cidr = '0.0.0.0/0' }";
const NONE: &str = "";

const CLIENT: &str = "203.0.113.12";
const SERVER: &str = "172.31.16.139";

#[test]
fn the_documented_ping_matrix() {
    let request = flow(Ingress, ICMP, (CLIENT, 0), (SERVER, 0), 1);
    let reply = flow(Egress, ICMP, (SERVER, 0), (CLIENT, 0), 2);
    let ping = "{ protocol = 'icmp', cidr = '203.0.113.0/24' }";
    let allow_ping = "{ rule = 100, action = 'allow', protocol = 'icmp', cidr = '203.0.113.0/24' }";

    let text = group(ping, NONE) + &acl(allow_ping, NONE);
    assert_eq!(judge(&mut policy(&text), &[request, reply]), [Accept, Reject], "the ACL stops the reply");

    let text = group(ping, NONE) + &acl(allow_ping, allow_ping);
    assert_eq!(judge(&mut policy(&text), &[request, reply]), [Accept, Accept], "the group knows the reply");

    for egress in [NONE, ANY] {
        for (acl_in, acl_out) in [(NONE, NONE), (NONE, ALLOW_ANY), (ALLOW_ANY, NONE), (ALLOW_ANY, ALLOW_ANY)] {
            let text = group(NONE, egress) + &acl(acl_in, acl_out);
            assert_eq!(judge(&mut policy(&text), &[request]), [Reject], "{text}");
        }
    }
}

#[test]
fn the_shape_of_a_policy_file() {
    let mut policy = policy(
        r#"
        [[security-group]]
        name = "web"
        interfaces = ["eth0"]
        ingress = [ { protocol = "tcp", ports = "443", cidr = "0.0.0.0/0" } ]
        egress  = [ { protocol = "all", cidr = "0.0.0.0/0" } ]

        [[network-acl]]
        name = "edge"
        interfaces = ["eth0"]
        ingress = [ { rule = 100, action = "allow", protocol = "icmp", cidr = "0.0.0.0/0" },
                    { rule = 200, action = "deny",  protocol = "all",  cidr = "0.0.0.0/0" } ]
        egress  = [ { rule = 100, action = "allow", protocol = "all",  cidr = "0.0.0.0/0" } ]
        "#,
    );
    let web = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 1);
    let ping_out = flow(Egress, ICMP, (SERVER, 0), (CLIENT, 0), 1);
    let ping_back = flow(Ingress, ICMP, (CLIENT, 0), (SERVER, 0), 2);
    assert_eq!(judge(&mut policy, &[web, ping_out, ping_back]), [Reject, Accept, Accept]);
}

#[test]
fn a_reply_needs_no_rule_and_an_opening_does() {
    let web = "{ protocol = 'tcp', ports = 443, cidr = '0.0.0.0/0' }";
    let there = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 1);
    let back = flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_000), 2);
    let other = flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_001), 2);
    let mut policy = policy(&group(web, NONE));
    assert_eq!(judge(&mut policy, &[there, back, other]), [Accept, Accept, Reject]);
}

#[test]
fn an_opening_that_is_turned_away_leaves_the_other_side_on_its_own() {
    let there = flow(Ingress, UDP, (CLIENT, 50_000), (SERVER, 53), 1);
    let back = flow(Egress, UDP, (SERVER, 53), (CLIENT, 50_000), 2);
    assert_eq!(judge(&mut policy(&group(NONE, NONE)), &[there, back]), [Reject, Reject]);

    let mut policy = policy(&group(NONE, ANY));
    assert_eq!(judge(&mut policy, &[there, back]), [Reject, Accept]);
    // The packet that went out made a connection: from now on the far end answers.
    let later = flow(Ingress, UDP, (CLIENT, 50_000), (SERVER, 53), 61);
    assert_eq!(judge(&mut policy, &[later]), [Accept]);
}

#[test]
fn the_first_packet_tells_the_opener() {
    let ingress = |secs| flow(Ingress, UDP, (CLIENT, 5000), (SERVER, 6000), secs);
    let egress = |secs| flow(Egress, UDP, (SERVER, 6000), (CLIENT, 5000), secs);
    let only_egress = group(NONE, ANY);
    assert_eq!(judge(&mut policy(&only_egress), &[ingress(2), egress(1)]), [Accept, Accept]);
    assert_eq!(judge(&mut policy(&only_egress), &[ingress(1), egress(2)]), [Reject, Accept]);
    // At one time the greater port is the client's: here the near end's.
    assert_eq!(judge(&mut policy(&only_egress), &[ingress(1), egress(1)]), [Accept, Accept]);
    // Without ports the far end is.
    let ping = [flow(Ingress, ICMP, (CLIENT, 0), (SERVER, 0), 1), flow(Egress, ICMP, (SERVER, 0), (CLIENT, 0), 1)];
    assert_eq!(judge(&mut policy(&only_egress), &ping), [Reject, Accept]);
}

#[test]
fn several_rows_of_one_flow_are_one_connection() {
    let early = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 1);
    let late = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 30);
    let back = flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_000), 2);
    assert_eq!(judge(&mut policy(&group(ANY, NONE)), &[late, back, early]), [Accept; 3]);
}

#[test]
fn connections_outlive_their_interval() {
    let web = "{ protocol = 'tcp', ports = 443, cidr = '0.0.0.0/0' }";
    let mut policy = policy(&group(web, NONE));
    assert_eq!(judge(&mut policy, &[flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 59)]), [Accept]);
    assert_eq!(judge(&mut policy, &[flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_000), 60)]), [Accept]);
    // The reply comes first in the second interval, and still is the reply.
    let there = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 122);
    let back = flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_000), 121);
    assert_eq!(judge(&mut policy, &[there, back]), [Accept, Accept]);
}

#[test]
fn idle_connections_are_forgotten() {
    // The last packet is at second 2. UDP is remembered for 180 s, TCP for 432000 s.
    for (protocol, idle_secs) in [(UDP, 180), (ICMP, 180), (TCP, 432_000)] {
        let there = flow(Ingress, protocol, (CLIENT, 0), (SERVER, 0), 1);
        let back = |secs| flow(Egress, protocol, (SERVER, 0), (CLIENT, 0), secs);
        for (secs, expected) in [(2 + idle_secs, Accept), (3 + idle_secs, Reject)] {
            let mut policy = policy(&group(ANY, NONE));
            assert_eq!(judge(&mut policy, &[there]), [Accept]);
            assert_eq!(judge(&mut policy, &[back(secs)]), [expected], "protocol {protocol}, {secs} s");
        }
    }
}

#[test]
fn acls_know_no_state() {
    let web = "{ rule = 100, action = 'allow', protocol = 'tcp', ports = '443', cidr = '0.0.0.0/0' }";
    let high = "{ rule = 100, action = 'allow', protocol = 'tcp', ports = '1024-65535', cidr = '0.0.0.0/0' }";
    let there = flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 443), 1);
    let back = flow(Egress, TCP, (SERVER, 443), (CLIENT, 50_000), 2);
    assert_eq!(judge(&mut policy(&acl(web, web)), &[there, back]), [Accept, Reject]);
    assert_eq!(judge(&mut policy(&acl(web, high)), &[there, back]), [Accept, Accept]);
}

#[test]
fn the_lowest_numbered_rule_that_matches_decides() {
    let rules = "{ rule = 300, action = 'allow', protocol = 'all', cidr = '0.0.0.0/0' },
                 { rule = 100, action = 'allow', protocol = 'tcp', ports = 22, cidr = '203.0.113.12' },
                 { rule = 200, action = 'deny', protocol = 'tcp', ports = 22, cidr = '203.0.113.0/24' }";
    let mut policy = policy(&acl(rules, NONE));
    let ssh = |from| flow(Ingress, TCP, (from, 50_000), (SERVER, 22), 1);
    assert_eq!(
        judge(&mut policy, &[ssh("203.0.113.12"), ssh("203.0.113.13"), ssh("198.51.100.1")]),
        [Accept, Reject, Accept]
    );
}

#[test]
fn ipv6_has_its_own_rules() {
    let there = flow(Ingress, 58, ("2001:db8::1", 0), ("2001:db8::2", 0), 1);
    let back = flow(Egress, 58, ("2001:db8::2", 0), ("2001:db8::1", 0), 2);
    assert_eq!(judge(&mut policy(&group(ANY, ANY)), &[there, back]), [Reject, Reject]);
    assert_eq!(judge(&mut policy(&group(ANY_V6, NONE)), &[there, back]), [Accept, Accept]);
}

#[test]
fn interfaces_without_rules_are_not_filtered() {
    let mut policy = policy(&(group(NONE, NONE) + &acl(NONE, NONE)));
    policy.bind(1, "wlan0").unwrap();
    policy.bind(2, "eth2").unwrap();
    let on = |interface| FlowView { interface, ..flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, 22), 1) };
    assert_eq!(judge(&mut policy, &[on(0), on(1), on(2), on(9)]), [Reject, Accept, Reject, Accept]);
}

#[test]
fn groups_of_one_interface_add_up() {
    let text = "[[security-group]]\nname = 'a'\ninterfaces = ['eth0']\n\
                ingress = [{ protocol = 'tcp', ports = 22, cidr = '0.0.0.0/0' }]\n\
                [[security-group]]\nname = 'b'\ninterfaces = ['*']\n\
                ingress = [{ protocol = 'tcp', ports = 443, cidr = '0.0.0.0/0' }]\n";
    let to = |port| flow(Ingress, TCP, (CLIENT, 50_000), (SERVER, port), 1);
    assert_eq!(judge(&mut policy(text), &[to(22), to(443), to(80)]), [Accept, Accept, Reject]);
}

#[test]
fn an_interface_has_one_acl() {
    let text =
        "[[network-acl]]\nname = 'a'\ninterfaces = ['eth0']\n[[network-acl]]\nname = 'b'\ninterfaces = ['eth*']\n";
    let mut policy = Policy::parse(text).unwrap();
    assert_eq!(policy.bind(1, "eth1"), Ok(()));
    assert_eq!(
        policy.bind(0, "eth0").unwrap_err().to_string(),
        "network ACLs `a` and `b` both apply to interface `eth0`, which can have only one"
    );
}

#[test]
fn services_that_are_never_filtered_pass() {
    use TrafficClass::{Activation, Dhcp, Dns, Metadata, Mirror, Router, Time};
    let mut policy = policy(&(group(NONE, NONE) + &acl(NONE, NONE)));
    let of = |class| FlowView { class, ..flow(Egress, UDP, (SERVER, 50_000), (CLIENT, 53), 1) };
    let exempt = [Dns, Dhcp, Metadata, Time, Activation, Router].map(|class| of(Some(class)));
    assert_eq!(judge(&mut policy, &exempt), [Accept; 6]);
    assert_eq!(judge(&mut policy, &[of(Some(Mirror)), of(None)]), [Reject, Reject]);
}

#[test]
fn a_flow_without_direction_passes_and_is_counted() {
    let mut policy = policy(&(group(NONE, NONE) + &acl(NONE, NONE)));
    let unknown = flow(Unknown, TCP, (CLIENT, 50_000), (SERVER, 22), 1);
    let elsewhere = FlowView { interface: 1, ..unknown };
    assert_eq!(judge(&mut policy, &[unknown, elsewhere]), [Accept, Accept]);
    assert_eq!(policy.counters(), PolicyCounters { unjudged: 1, ..PolicyCounters::default() });
}

#[test]
fn the_oldest_connection_is_evicted_first() {
    let mut policy = policy(&group(ANY, NONE));
    policy.connections = Connections::with_limit(2);
    let there = |port, secs| flow(Ingress, TCP, (CLIENT, port), (SERVER, 443), secs);
    let back = |port, secs| flow(Egress, TCP, (SERVER, 443), (CLIENT, port), secs);
    assert_eq!(judge(&mut policy, &[there(1, 20), there(2, 10)]), [Accept, Accept]);
    assert_eq!(judge(&mut policy, &[there(3, 60)]), [Accept]);
    assert_eq!(policy.counters().evicted, 1);
    assert_eq!(judge(&mut policy, &[back(2, 120)]), [Reject], "last seen first, at second 11");
    assert_eq!(judge(&mut policy, &[back(1, 121), back(3, 121)]), [Accept, Accept]);
}

#[test]
fn idle_connections_make_room_before_live_ones() {
    let mut policy = policy(&group(ANY, NONE));
    policy.connections = Connections::with_limit(2);
    let there = |protocol, secs| flow(Ingress, protocol, (CLIENT, 1), (SERVER, 443), secs);
    judge(&mut policy, &[there(TCP, 1), there(UDP, 50)]);
    judge(&mut policy, &[there(132, 1000)]);
    assert_eq!(policy.counters().evicted, 0, "the UDP one had been idle for too long");
    assert_eq!(judge(&mut policy, &[flow(Egress, TCP, (SERVER, 443), (CLIENT, 1), 1001)]), [Accept]);
}

#[test]
fn beyond_the_bound_of_an_interval_flows_are_judged_alone() {
    let mut policy = policy(&group(ANY, NONE));
    policy.connections = Connections::with_limit(1);
    let there = |port| flow(Ingress, TCP, (CLIENT, port), (SERVER, 443), 1);
    let back = |port| flow(Egress, TCP, (SERVER, 443), (CLIENT, port), 2);
    let flows = [there(2), back(2), there(1), back(1)];
    assert_eq!(judge(&mut policy, &flows), [Accept, Reject, Accept, Accept], "the smaller key stays");
    assert_eq!(policy.counters().untracked, 2);
}

#[test]
fn fuzzing_survives_what_it_is_made_for() {
    fuzz(b"\xff\xfe");
    fuzz(b"[[network-acl]]\nname=1");
    fuzz(group(ANY, ANY).as_bytes());
    fuzz("[[network-acl]]\nname = 'a'\ninterfaces = ['*']\n".as_bytes());
}

/// The policy of the model: groups and an ACL that cut across each other.
const MODEL_POLICY: &str = "
    [[security-group]]
    name = 'g'
    interfaces = ['eth0']
    ingress = [{ protocol = 'tcp', ports = '1', cidr = '10.0.0.0/31' }]
    egress = [{ protocol = 'udp', cidr = '0.0.0.0/0' }, { protocol = 'icmp', cidr = '10.0.0.1' }]
    [[network-acl]]
    name = 'a'
    interfaces = ['eth0']
    ingress = [
      { rule = 1, action = 'deny', protocol = 'udp', ports = '2', cidr = '0.0.0.0/0' },
      { rule = 2, action = 'allow', protocol = 'all', cidr = '0.0.0.0/0' },
    ]
    egress = [{ rule = 1, action = 'allow', protocol = 'all', cidr = '10.0.0.0/30' }]
";

/// What [`MODEL_POLICY`]'s group says of a first packet. Addresses of the far end are `10.0.0.{peer}`.
fn model_group_allows(direction: Direction, protocol: u8, peer: u8, dst_port: u16) -> bool {
    match direction {
        Ingress => protocol == TCP && dst_port == 1 && peer < 2,
        Egress => protocol == UDP || (protocol == ICMP && peer == 1),
        Unknown => true,
    }
}

fn model_acl_allows(direction: Direction, protocol: u8, peer: u8, dst_port: u16) -> bool {
    match direction {
        Ingress => !(protocol == UDP && dst_port == 2),
        Egress => peer < 4,
        Unknown => true,
    }
}

/// A flow between `10.0.0.{peer}` and the one near end, as the model draws them.
#[derive(Debug, Clone, Copy)]
struct ModelFlow {
    outward: bool,
    protocol: u8,
    peer: u8,
    peer_port: u16,
    near_port: u16,
    first_secs: u64,
}

impl ModelFlow {
    fn direction(self) -> Direction {
        if self.outward { Egress } else { Ingress }
    }

    fn dst_port(self) -> u16 {
        if self.outward { self.peer_port } else { self.near_port }
    }

    fn connection(self) -> (u8, u8, u16, u16) {
        (self.protocol, self.peer, self.peer_port, self.near_port)
    }

    fn view(self) -> FlowView {
        let peer = format!("10.0.0.{}", self.peer);
        let (far, near) = ((peer.as_str(), self.peer_port), ("10.0.9.9", self.near_port));
        let (from, to) = if self.outward { (near, far) } else { (far, near) };
        flow(self.direction(), self.protocol, from, to, self.first_secs)
    }

    fn group_allows(self) -> bool {
        model_group_allows(self.direction(), self.protocol, self.peer, self.dst_port())
    }
}

/// The rules of the module's first page, without bounds, one connection at a time. `open` holds the second of the last
/// packet.
fn model_interval(open: &mut HashMap<(u8, u8, u16, u16), u64>, flows: &[ModelFlow]) -> Vec<Action> {
    let before = open.clone();
    let group_passes = |one: &ModelFlow, open: &mut HashMap<_, u64>| {
        let connection: Vec<_> = flows.iter().filter(|flow| flow.connection() == one.connection()).collect();
        let first_secs = connection.iter().map(|flow| flow.first_secs).min().unwrap();
        let last_secs = connection.iter().map(|flow| flow.first_secs + 1).max().unwrap();
        let idle_secs = if one.protocol == TCP { 432_000 } else { 180 };
        let known = before.get(&one.connection()).filter(|last| **last + idle_secs >= first_secs);
        let greater_port_first = |flow: &&&ModelFlow| match (flow.near_port > flow.peer_port, flow.outward) {
            (true, true) | (false, false) => 0,
            (true, false) | (false, true) => 1,
        };
        let opener = connection.iter().min_by_key(|flow| (flow.first_secs, greater_port_first(flow))).unwrap();
        let passes = known.is_some() || opener.group_allows();
        if passes || connection.iter().any(|flow| flow.group_allows()) {
            open.insert(one.connection(), last_secs.max(known.copied().unwrap_or(0)));
        }
        passes || one.group_allows()
    };
    flows
        .iter()
        .map(|flow| {
            let acl = model_acl_allows(flow.direction(), flow.protocol, flow.peer, flow.dst_port());
            if group_passes(flow, open) && acl { Accept } else { Reject }
        })
        .collect()
}

fn model_flow() -> impl Strategy<Value = ModelFlow> {
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ICMP)];
    (any::<bool>(), protocol, 0_u8..5, 1_u16..3, 1_u16..3, 0_u64..4).prop_map(
        |(outward, protocol, peer, peer_port, near_port, first_secs)| {
            let port = |port| if protocol == ICMP { 0 } else { port };
            let (peer_port, near_port) = (port(peer_port), port(near_port));
            ModelFlow { outward, protocol, peer, peer_port, near_port, first_secs }
        },
    )
}

/// Up to four intervals, each some seconds to minutes after the one before.
fn model_intervals() -> impl Strategy<Value = Vec<Vec<ModelFlow>>> {
    let interval = (0_u64..300, prop::collection::vec(model_flow(), 0..24));
    prop::collection::vec(interval, 1..4).prop_map(|intervals| {
        let mut start_secs = 0;
        let placed = intervals.into_iter().map(|(pause_secs, mut flows)| {
            start_secs += 4 + pause_secs;
            flows.iter_mut().for_each(|flow| flow.first_secs += start_secs);
            flows
        });
        placed.collect()
    })
}

proptest! {
    #[test]
    fn damaged_files_are_refused_and_nothing_worse(
        at in any::<prop::sample::Index>(), damage in "\\PC{0,4}", cut in 0_usize..8
    ) {
        let characters: Vec<char> = MODEL_POLICY.chars().collect();
        let (head, tail) = characters.split_at(at.index(characters.len()));
        let text: String = head.iter().copied().chain(damage.chars()).chain(tail.iter().copied().skip(cut)).collect();
        fuzz(text.as_bytes());
    }

    #[test]
    fn agrees_with_the_model(intervals in model_intervals()) {
        let mut policy = policy(MODEL_POLICY);
        let mut open = HashMap::new();
        for flows in intervals {
            let views: Vec<_> = flows.iter().map(|flow| flow.view()).collect();
            prop_assert_eq!(judge(&mut policy, &views), model_interval(&mut open, &flows));
        }
    }

    #[test]
    fn order_makes_no_difference_even_beyond_the_bounds(
        intervals in model_intervals(), limit in 0_usize..6, rotation in 0_usize..24
    ) {
        let (mut one, mut other) = (policy(MODEL_POLICY), policy(MODEL_POLICY));
        one.connections = Connections::with_limit(limit);
        other.connections = Connections::with_limit(limit);
        for flows in intervals {
            let mut views: Vec<_> = flows.iter().map(|flow| flow.view()).collect();
            let there = judge(&mut one, &views);
            let middle = rotation % views.len().max(1);
            views.rotate_left(middle);
            views.reverse();
            let mut back = judge(&mut other, &views);
            back.reverse();
            back.rotate_right(middle);
            prop_assert_eq!(there, back);
            prop_assert_eq!(one.counters(), other.counters());
        }
    }
}
