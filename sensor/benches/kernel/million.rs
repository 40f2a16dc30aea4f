//! A million flows, a packet each in turn: what is needed is in no cache. One test run a packet, so a run holds two
//! readings of the clock; the empty program's run has them too.

use std::io::Write;

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun, TestRunOptions},
};
use flowtap::capture::kernel::OBJECT;

use crate::classifier;
use crate::frames::{IPV4, IPV6, TCP, ethernet, ipv4, ipv6, tcp};

/// A program with maps of its own, so that none finds in the cache what another has just used.
struct Case {
    program: &'static str,
    name: &'static str,
    frame: Vec<u8>,
    /// Where the frame has the last four bytes of the source address.
    source: usize,
    object: Ebpf,
    /// The least mean of any pass over flows that are known.
    known_mean: f64,
    known_median: u64,
    new_mean: f64,
    new_median: u64,
}

/// Measures every case and writes a table.
pub(crate) fn run(out: &mut impl Write) -> Result<()> {
    let (v4, v6) = (ethernet(IPV4, &ipv4(&[], TCP, &tcp())), ethernet(IPV6, &ipv6(TCP, &tcp())));
    let mut cases = vec![
        Case::new("yardstick_empty", "IPv4 TCP", &v4, 26)?,
        Case::new("yardstick_count", "IPv4 TCP", &v4, 26)?,
        Case::new("flow_ingress", "IPv4 TCP", &v4, 26)?,
        Case::new("flow_ingress", "IPv6 TCP", &v6, 34)?,
    ];
    for pass in 0..PASSES {
        let durations = one_pass(&mut cases, pass)?;
        for (case, mut durations) in cases.iter_mut().zip(durations) {
            let mean = durations.iter().sum::<u64>() as f64 / durations.len() as f64;
            let middle = durations.len() / 2;
            let median = *durations.select_nth_unstable(middle).1;
            if pass == 0 {
                (case.new_mean, case.new_median) = (mean, median);
            } else {
                (case.known_mean, case.known_median) = (case.known_mean.min(mean), case.known_median.min(median));
            }
        }
    }
    let empty = cases.first().context("no case")?;
    let (new, new_median) = (empty.new_mean, empty.new_median);
    let (known, known_median) = (empty.known_mean, empty.known_median);
    writeln!(out, "\n{FLOWS} flows, a packet each in turn; ns above the empty program, mean (median)")?;
    writeln!(out, "an empty run takes {known:.0} ({known_median}) ns with its two readings of the clock\n")?;
    writeln!(out, "| program | frame | flow is new | flow is known |\n|---|---|---:|---:|")?;
    for case in cases.iter().skip(1) {
        writeln!(
            out,
            "| {} | {} | {:.0} ({}) | {:.0} ({}) |",
            case.program,
            case.name,
            case.new_mean - new,
            case.new_median.saturating_sub(new_median),
            case.known_mean - known,
            case.known_median.saturating_sub(known_median),
        )?;
    }
    Ok(())
}

/// How long each run of each case took. The cases take turns packet by packet.
fn one_pass(cases: &mut [Case], pass: u32) -> Result<Vec<Vec<u64>>> {
    let mut durations: Vec<Vec<u64>> = cases.iter().map(|_| Vec::with_capacity(FLOWS as usize)).collect();
    for step in 0..FLOWS {
        // Another order in each pass: entries lie in the order in which they came, which a processor would foresee.
        let flow = step.wrapping_mul(ORDER + 2 * pass) % FLOWS;
        for (case, durations) in cases.iter_mut().zip(&mut durations) {
            let source = case.source..case.source + 4;
            case.frame.get_mut(source).context("a short frame")?.copy_from_slice(&(NETWORK | flow).to_be_bytes());
            let options = TestRunOptions { data_in: Some(&case.frame), ..TestRunOptions::new() };
            let run = classifier(&mut case.object, case.program)?.test_run(options)?;
            durations.push(u64::try_from(run.duration.as_nanos())?);
        }
    }
    Ok(durations)
}

impl Case {
    fn new(program: &'static str, name: &'static str, frame: &[u8], source: usize) -> Result<Self> {
        let maps: &[&str] = if source == 26 { &["FLOWS_V4_A", "FLOWS_V4_B"] } else { &["FLOWS_V6_A", "FLOWS_V6_B"] };
        let mut loader = EbpfLoader::new();
        for map in maps {
            loader.map_max_entries(map, FLOWS + FLOWS / 8);
        }
        Ok(Self {
            program,
            name,
            frame: frame.to_vec(),
            source,
            object: loader.load(OBJECT)?,
            known_mean: f64::INFINITY,
            known_median: u64::MAX,
            new_mean: 0.0,
            new_median: 0,
        })
    }
}

/// A power of two, so that an odd factor visits each flow once.
const FLOWS: u32 = 1 << 20;
/// One over flows that are new, and some over the same flows again.
const PASSES: u32 = 4;
const ORDER: u32 = 0x9e37_79b1;
/// 10.0.0.0.
const NETWORK: u32 = 0x0a00_0000;
