//! What the tap adds to a packet, by the kernel's own test run: with rules that match nothing, and with one that takes
//! everything. A test run has the loopback device, and its clones are real: they go out to the collector.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun, TestRunOptions, loaded_programs},
};
use flowtap::capture::kernel::{Device, OBJECT};
use flowtap::mirror::kernel::KernelMirror;

use super::{ALL, Site, configuration, tap};
use crate::Options;
use crate::blast::{frame, set_flow};
use crate::wire::{ELSEWHERE, Place, SENDER, pin};

/// Rules that are asked.
struct Case {
    name: &'static str,
    repeat: u32,
    least_ns: u128,
    program: SchedClassifier,
    // Its tables and the way of its copies.
    _mirror: Option<KernelMirror>,
    site: Site,
}

/// Every case in turns, and a table.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let (rounds, scale) = if options.bench { (ROUNDS, 1) } else { (1, 100) };
    let mut cases = Vec::new();
    for (name, rules, packets) in [
        ("the empty program", None, PACKETS),
        ("a session that matches nothing", Some(none_of(1)), PACKETS),
        ("100 rules, of which none matches", Some(none_of(100)), PACKETS),
        ("a session that matches all: copies are made", Some(ALL.to_owned()), COPIES),
    ] {
        let site = Site::new()?;
        site.near.tool("ip link set lo up")?;
        let (program, mirror) = match rules {
            None => (empty()?, None),
            Some(rules) => site.near.run(|| tapping(&rules)).map(|(program, mirror)| (program, Some(mirror)))?,
        };
        cases.push(Case { name, repeat: packets / scale, least_ns: u128::MAX, program, _mirror: mirror, site });
    }
    let mut packet = frame(ELSEWHERE, 64);
    set_flow(&mut packet, 1);
    for _ in 0..rounds {
        for Case { repeat, least_ns, program, site, .. } in &mut cases {
            let options = TestRunOptions { data_in: Some(&packet), repeat: *repeat, ..TestRunOptions::new() };
            let ns = site.near.run(|| {
                pin(Place::On(SENDER))?;
                Ok(program.test_run(options)?.duration.as_nanos())
            })?;
            *least_ns = ns.min(*least_ns);
        }
    }
    let empty = cases.first().map_or(0, |case| case.least_ns);
    writeln!(out, "\n### Mirroring: what the tap adds to a packet, by test runs, the least of {rounds}\n")?;
    writeln!(out, "| rules | ns | above empty |\n|---|---:|---:|")?;
    for Case { name, least_ns, .. } in &cases {
        writeln!(out, "| {name} | {least_ns} | {} |", least_ns.saturating_sub(empty))?;
    }
    Ok(())
}

/// A program that does nothing.
fn empty() -> Result<SchedClassifier> {
    let mut object = Ebpf::load(OBJECT)?;
    let program: &mut SchedClassifier = object.program_mut(EMPTY).context("no empty program")?.try_into()?;
    program.load()?;
    Ok(SchedClassifier::from_program_info(program.info()?, Cow::Borrowed(EMPTY))?)
}

/// The ingress program with tables for these rules, at the loopback device of the calling thread's namespace.
fn tapping(rules: &str) -> Result<(SchedClassifier, KernelMirror)> {
    let before = own_programs()?;
    let mut mirror = tap::programs(&configuration(LOOPBACK, rules))?;
    mirror.attach(&Device::find(LOOPBACK)?)?;
    let own = own_programs()?;
    let is_new = |id: u32| own.contains(&id) && !before.contains(&id);
    let mut new = loaded_programs().filter_map(Result::ok).filter(|info| is_new(info.id()));
    let info = new.find(|info| info.name_as_str() == Some(TAP)).context("no tap was loaded")?;
    Ok((SchedClassifier::from_program_info(info, Cow::Borrowed(TAP))?, mirror))
}

/// The numbers of the programs that this process holds.
fn own_programs() -> Result<BTreeSet<u32>> {
    let mut programs = BTreeSet::new();
    for descriptor in fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor of the directory itself is gone again.
        let text = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        let number = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        programs.extend(number.map(|number| number.trim().parse::<u32>()).transpose()?);
    }
    Ok(programs)
}

/// So many rules about others.
fn none_of(count: u32) -> String {
    (1..=count).fold(String::new(), |mut rules, number| {
        let rule = format!(
            "direction = \"ingress\", number = {number}, action = \"accept\", source = \"198.51.100.{number}\""
        );
        // Writing to a string can't fail.
        writeln!(rules, "  {{ {rule}, protocol = \"udp\", destination-ports = \"{}\" }},", 1000 + number)
            .unwrap_or_default();
        rules
    })
}

const LOOPBACK: &str = "lo";
const TAP: &str = "mirror_ingress";
const EMPTY: &str = "yardstick_empty";
const ROUNDS: u32 = 15;
const PACKETS: u32 = 1_000_000;
/// Copies are dear.
const COPIES: u32 = 100_000;
