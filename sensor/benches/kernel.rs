//! Nanoseconds a packet of the kernel's programs, one hot flow, by the kernel's own test run.
//!
//! `cargo bench -p flowtap --features ebpf --bench kernel`, as root. The kernel measures, so the profile of this program
//! does not matter. The minimum of many runs is told: on a machine that does other work as well, medians move by a
//! quarter, minima by a thirtieth. What counts is the distance from the empty program in the same run.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use flowtap::capture::kernel::OBJECT;

const RUNS: u32 = 15;
const PACKETS_PER_RUN: u32 = 1_000_000;

/// Program, what it is given, and the frame.
type Case = (&'static str, &'static str, Vec<u8>);

#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
fn main() -> Result<()> {
    let mut object = match Ebpf::load(OBJECT) {
        Ok(object) => object,
        Err(error) => {
            println!("skipped: programs cannot be loaded here ({error})");
            return Ok(());
        }
    };
    let cases = cases();
    let mut least_ns = vec![u128::MAX; cases.len()];
    for (program, ..) in &cases {
        let program = classifier(&mut object, program)?;
        if program.fd().is_err() {
            program.load()?;
        }
    }
    // Round by round over all cases, so that a busy moment hits them alike.
    for _ in 0..RUNS {
        for ((program, _, frame), least) in cases.iter().zip(&mut least_ns) {
            let options = TestRunOptions { data_in: Some(frame), repeat: PACKETS_PER_RUN, ..TestRunOptions::new() };
            let run = classifier(&mut object, program)?.test_run(options)?;
            *least = run.duration.as_nanos().min(*least);
        }
    }
    let empty = least_ns.first().copied().unwrap_or(0);
    for program in ["yardstick_empty", "yardstick_count", "flow_ingress"] {
        let verified = classifier(&mut object, program)?.info()?.verified_instruction_count().unwrap_or(0);
        println!("{program}: the verifier went through {verified} of a million instructions");
    }
    println!("{:<16} {:<28} {:>6} {:>12}", "program", "frame", "ns", "above empty");
    for ((program, name, _), least) in cases.iter().zip(&least_ns) {
        println!("{program:<16} {name:<28} {least:>6} {:>12}", least.saturating_sub(empty));
    }
    Ok(())
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn cases() -> Vec<Case> {
    let tcp = [&[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0][..], &[0; 64]].concat();
    let v4 = ipv4(&[], &tcp);
    let v6 = ipv6(6, &tcp);
    let tagged = |tag: u8, ether_type: [u8; 2], rest: &[u8]| [&[0, tag], &ether_type[..], rest].concat();
    let hop_by_hop = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp].concat();
    let qinq = tagged(100, [0x81, 0], &tagged(7, [8, 0], &ipv4(&[1; 40], &tcp)));
    vec![
        ("yardstick_empty", "IPv4 TCP", ethernet([8, 0], &v4)),
        ("yardstick_count", "IPv4 TCP", ethernet([8, 0], &v4)),
        ("flow_ingress", "IPv4 TCP", ethernet([8, 0], &v4)),
        ("flow_ingress", "IPv6 TCP", ethernet([0x86, 0xdd], &v6)),
        ("flow_ingress", "VLAN, IPv4 TCP", ethernet([0x81, 0], &tagged(7, [8, 0], &v4))),
        ("flow_ingress", "two tags, IPv4 options, TCP", ethernet([0x88, 0xa8], &qinq)),
        ("flow_ingress", "IPv6 hop-by-hop, TCP", ethernet([0x86, 0xdd], &ipv6(0, &hop_by_hop))),
    ]
}

fn ethernet(ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type[..], payload].concat()
}

fn ipv4(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [0x40 | words, 0, total[0], total[1], 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header, options, payload].concat()
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next_header, 64];
    for last in [1, 2] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}
