//! What it costs to mirror, and what arrives: flowtap's programs, its thread, and Linux's own `mirred` action into a vxlan
//! device with the same settings.
//!
//! The tapped host is the near end of the cable; copies leave it over a cable of their own to a collector. There they
//! are taken before the stack looks at them, and so is at the tapped host, behind the tap, what nobody waits for.

mod replay;
mod stall;
mod tap;
mod test_run;
mod traffic;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Options;
use crate::machine::busy;
use crate::take::Taker;
use crate::throughput::{median, summed};
use crate::wire::{FAR, FAR_ETHER, NEAR, NEAR_ETHER, Namespace, cable, counts, join};
use tap::{Copies, Tap};
use traffic::{Traffic, Work};

/// The tapped host, who talks to it, and who gets the copies.
struct Site {
    near: Namespace,
    far: Namespace,
    collector: Namespace,
    _taker: Taker,
}

/// One turn.
struct Turn {
    work: Work,
    busy: Duration,
    copies: Copies,
    arrived: u64,
}

/// Everything about mirroring, with a table for each.
///
/// # Errors
///
/// When a copy is not accounted for.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    test_run::run(options, out)?;
    // A check sees enough in one.
    let kinds = if options.bench { Traffic::ALL.len() } else { 1 };
    for traffic in Traffic::ALL.into_iter().take(kinds) {
        let mut all: Vec<(Tap, Vec<Turn>)> = Tap::ALL.into_iter().map(|tap| (tap, Vec::new())).collect();
        for round in 1..=options.rounds {
            for (tap, turns) in &mut all {
                let turn = turn(*tap, traffic, options).with_context(|| format!("{tap}, {traffic}"))?;
                let words = format!("round {round}: {traffic}, {tap}: {:.0} a second", turn.work.rate());
                writeln!(io::stderr(), "{words}, {} copies, {} arrived", turn.copies.sent, turn.arrived)?;
                turns.push(turn);
            }
        }
        report(&all, traffic, options, out)?;
    }
    replay::run(options, out)?;
    stall::run(options, out)
}

impl Site {
    fn new() -> Result<Self> {
        let (near, far) = cable()?;
        let collector = Namespace::new()?;
        join((&near, OUT, OUT_ETHER), (&collector, IDS, IDS_ETHER), 1600)?;
        // Everybody knows his neighbours, so that nothing is sent but what is measured.
        for (namespace, device, address, neighbour, ether) in [
            (&near, NEAR, NEAR_IP, FAR_IP, FAR_ETHER),
            (&far, FAR, FAR_IP, NEAR_IP, NEAR_ETHER),
            (&near, OUT, OUT_IP, IDS_IP, IDS_NO_ETHER),
        ] {
            namespace.tool(&format!("ip addr add {address}/24 dev {device}"))?;
            namespace.tool(&format!("ip neigh replace {neighbour} lladdr {ether} dev {device} nud permanent"))?;
        }
        let taker = collector.run(|| Taker::new(IDS))?;
        Ok(Self { near, far, collector, _taker: taker })
    }

    /// Frames that have come to the collector.
    fn arrived(&self) -> Result<u64> {
        self.collector.run(|| Ok(counts(IDS)?.received))
    }
}

fn turn(tap: Tap, traffic: Traffic, options: &Options) -> Result<Turn> {
    let site = Site::new()?;
    // Nobody there waits for it.
    let _taker = if traffic == Traffic::Small { Some(site.near.run(|| Taker::new(NEAR))?) } else { None };
    let tapping = tap.start(&site, &options.flowtap)?;
    let busy_before = busy()?;
    let work = traffic.send(&site, options.turn())?;
    let spent = busy()?.saturating_sub(busy_before);
    let copies = tapping.end(&site)?;
    Ok(Turn { work, busy: spent, copies, arrived: site.arrived()? })
}

fn report(all: &[(Tap, Vec<Turn>)], traffic: Traffic, options: &Options, out: &mut impl Write) -> Result<()> {
    let (_, nothing) = all.first().context("nothing is compared")?;
    writeln!(out, "\n### Mirroring: {traffic}, {} s, {} rounds\n", options.secs, options.rounds)?;
    writeln!(
        out,
        "| who mirrors | {} | ratio | copies sent | arrived | skipped | CPU s | ns a copy |",
        traffic.unit()
    )?;
    writeln!(out, "|---|---:|---:|---:|---:|---|---:|---:|")?;
    for (tap, turns) in all {
        let pairs = || turns.iter().zip(nothing);
        let rate = median(turns.iter().map(|turn| turn.work.rate() * traffic.units()));
        let ratio = median(pairs().map(|(turn, nothing)| turn.work.rate() / nothing.work.rate()));
        let cpu = median(turns.iter().map(|turn| turn.busy.as_secs_f64()));
        write!(out, "| {tap} | {rate:.2} | {ratio:.2} |")?;
        if *tap == Tap::Nothing {
            writeln!(out, " | | | {cpu:.2} | |")?;
            continue;
        }
        let sum = |value: fn(&Turn) -> u64| turns.iter().map(value).sum::<u64>();
        let (sent, arrived) = (sum(|turn| turn.copies.sent), sum(|turn| turn.arrived));
        let skipped = summed(turns.iter().flat_map(|turn| &turn.copies.skipped));
        let ns = median(pairs().map(|(turn, nothing)| turn.ns_a_copy(nothing)));
        writeln!(out, " {sent} | {arrived} | {skipped} | {cpu:.2} | {ns:.0} |")?;
    }
    let of = |wanted| all.iter().find(|(tap, _)| *tap == wanted).map(|(_, turns)| turns.iter().zip(nothing));
    if let (Some(ours), Some(mirred)) = (of(Tap::Programs), of(Tap::Mirred)) {
        let pairs: Vec<_> = ours.zip(mirred).collect();
        let cost =
            pairs.iter().map(|((ours, nothing), (mirred, _))| ours.ns_a_copy(nothing) / mirred.ns_a_copy(nothing));
        let rate = pairs.iter().map(|((ours, _), (mirred, _))| ours.work.rate() / mirred.work.rate());
        let (cost, rate) = (median(cost), median(rate));
        writeln!(
            out,
            "\nA copy by flowtap's programs costs {cost:.2} of one by mirred; traffic goes {rate:.2} times as fast."
        )?;
    }
    Ok(())
}

impl Turn {
    /// What the whole machine took more than with nobody, for the same work, by copies.
    fn ns_a_copy(&self, nothing: &Self) -> f64 {
        let of_nothing = nothing.busy.as_secs_f64() / nothing.work.amount * self.work.amount;
        (self.busy.as_secs_f64() - of_nothing) * 1e9 / self.arrived as f64
    }
}

/// Session 1 takes by these rules what passes `interface`, at any rate.
fn configuration(interface: &str, rules: &str) -> String {
    format!(
        r#"
[[interface]]
name = "{interface}"
[[mirror.target]]
name = "ids"
address = "{IDS_IP}"
[[mirror.filter]]
name = "all"
rules = [
{rules}
]
[[mirror.session]]
number = 1
interface = "{interface}"
target = "ids"
filter = "all"
vni = {VNI}
packets-per-second-max = "unlimited"
bits-per-second-max = "unlimited"
"#
    )
}

/// Rules that take everything.
const ALL: &str = r#"
  { direction = "ingress", number = 100, action = "accept" },
  { direction = "egress", number = 100, action = "accept" },
"#;

/// The near end of the cable to the collector, and the far one.
const OUT: &str = "out0";
const IDS: &str = "ids0";
const OUT_ETHER: &str = "02:00:00:00:00:03";
const IDS_ETHER: &str = "02:00:00:00:00:04";
/// Where copies go: not to the address that the collector has.
const IDS_NO_ETHER: &str = "02:00:00:00:00:99";
const NEAR_IP: &str = "10.9.0.1";
const FAR_IP: &str = "10.9.0.2";
const OUT_IP: &str = "10.83.0.1";
const IDS_IP: &str = "10.83.0.2";
const VNI: u32 = 4242;
