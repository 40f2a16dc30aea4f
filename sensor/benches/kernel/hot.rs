//! One hot flow: everything that is needed is in the cache. The minimum of many runs is told: on a machine that does
//! other work as well, medians move by a quarter, minima by a thirtieth.

use std::io::Write;

use anyhow::Result;
use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions},
};

use crate::classifier;
use crate::frames::{
    ICMP, IPV4, IPV6, SERVICE_VLAN, TCP, UDP, VLAN, echo, ethernet, ipv4, ipv6, piece_v4, super_packet, tagged, tcp,
    udp,
};

/// What is run, and over what.
struct Case {
    program: &'static str,
    name: &'static str,
    frame: Vec<u8>,
    context: Option<[u8; 192]>,
}

/// Measures every case and writes a table.
pub(crate) fn run(object: &mut Ebpf, out: &mut impl Write) -> Result<()> {
    let cases = cases();
    let mut least_ns = vec![u128::MAX; cases.len()];
    // Round by round over all cases, so that a busy moment hits them alike.
    for _ in 0..ROUNDS {
        for (case, least) in cases.iter().zip(&mut least_ns) {
            let options = TestRunOptions {
                data_in: Some(&case.frame),
                ctx_in: case.context.as_ref().map(|context| &context[..]),
                repeat: PACKETS_PER_RUN,
                ..TestRunOptions::new()
            };
            let run = classifier(object, case.program)?.test_run(options)?;
            *least = run.duration.as_nanos().min(*least);
        }
    }
    for program in ["yardstick_empty", "yardstick_count", "flow_ingress", "flow_egress"] {
        let verified = classifier(object, program)?.info()?.verified_instruction_count().unwrap_or(0);
        writeln!(out, "{program}: the verifier went through {verified} of a million instructions")?;
    }
    let empty = least_ns.first().copied().unwrap_or(0);
    writeln!(out, "\none hot flow, the least of {ROUNDS} runs of {PACKETS_PER_RUN} packets\n")?;
    writeln!(out, "| program | frame | ns | above empty |\n|---|---|---:|---:|")?;
    for (Case { program, name, .. }, least) in cases.iter().zip(&least_ns) {
        writeln!(out, "| {program} | {name} | {least} | {} |", least.saturating_sub(empty))?;
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let case = |program, name, frame| Case { program, name, frame, context: None };
    let whole = |name, frame| case("flow_ingress", name, frame);
    let tcp = tcp();
    let v4 = ipv4(&[], TCP, &tcp);
    let v6 = ipv6(TCP, &tcp);
    let hop_by_hop = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &tcp].concat();
    let two_tags = tagged(100, VLAN, &tagged(7, IPV4, &ipv4(&[1; 40], TCP, &tcp)));
    let large = [&tcp[..20], &[0; 3000]].concat();
    let super_packets =
        Case { context: Some(super_packet(1448)), ..whole("IPv4 TCP, GSO", ethernet(IPV4, &ipv4(&[], TCP, &large))) };
    vec![
        case("yardstick_empty", "IPv4 TCP", ethernet(IPV4, &v4)),
        case("yardstick_count", "IPv4 TCP", ethernet(IPV4, &v4)),
        whole("IPv4 TCP", ethernet(IPV4, &v4)),
        whole("IPv6 TCP", ethernet(IPV6, &v6)),
        whole("IPv4 UDP", ethernet(IPV4, &ipv4(&[], UDP, &udp()))),
        whole("IPv4 ICMP", ethernet(IPV4, &ipv4(&[], ICMP, &echo()))),
        super_packets,
        whole("VLAN, IPv4 TCP", ethernet(VLAN, &tagged(7, IPV4, &v4))),
        whole("two tags, IPv4 options, TCP", ethernet(SERVICE_VLAN, &two_tags)),
        whole("IPv6 hop-by-hop, TCP", ethernet(IPV6, &ipv6(0, &hop_by_hop))),
        // The second finds its ports where the first has left them.
        whole("IPv4 UDP, first fragment", ethernet(IPV4, &piece_v4(&[], 0x2000, UDP, &udp()))),
        whole("IPv4 UDP, later fragment", ethernet(IPV4, &piece_v4(&[], 9, UDP, &[0; 64]))),
    ]
}

const ROUNDS: u32 = 15;
const PACKETS_PER_RUN: u32 = 1_000_000;
