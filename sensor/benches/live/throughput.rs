//! Frames of 64 bytes at full speed over a cable: one core sends, another is left to who watches.
//!
//! The frames are taken behind whoever watches ([`Taker`]).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Options;
use crate::blast::Blaster;
use crate::measure::now;
use crate::take::Taker;
use crate::watchers::{Told, Watch, Watcher};
use crate::wire::{ELSEWHERE, FAR, NEAR, Place, SENDER, cable, counts, pin};

/// All turns of one watcher.
struct Series {
    watcher: Watcher,
    program: Option<PathBuf>,
    turns: Vec<Turn>,
}

/// One turn.
struct Turn {
    sent: u64,
    took: Duration,
    told: Told,
}

/// Every watcher in turns, for each number of flows, and a table for each.
///
/// # Errors
///
/// When flowtap contradicts itself or the wire.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    for &flows in &options.flows {
        let mut all = Vec::new();
        for watcher in Watcher::ALL {
            let program = watcher.find(&options.flowtap);
            if program.is_none() && watcher != Watcher::Nobody {
                writeln!(io::stderr(), "{watcher} is left out: it is not installed")?;
                continue;
            }
            all.push(Series { watcher, program, turns: Vec::new() });
        }
        for round in 1..=options.rounds {
            for series in &mut all {
                let turn = turn(series, flows, options).with_context(|| series.watcher.to_string())?;
                let (rate, counted) = (turn.rate(), turn.told.counted);
                let words = format!("round {round}: {flows} flows, {}: {rate:.0} a second", series.watcher);
                writeln!(io::stderr(), "{words}, {counted} of {} counted", turn.sent)?;
                series.turns.push(turn);
            }
        }
        report(&all, flows, options, out)?;
    }
    Ok(())
}

/// A new cable, somebody who watches its near end, and frames from the far end.
fn turn(series: &Series, flows: u32, options: &Options) -> Result<Turn> {
    let (near, far) = cable()?;
    let _taker = near.run(|| Taker::new(NEAR))?;
    let watch = series.program.as_ref().map(|program| {
        near.run(|| {
            pin(Place::Beside(SENDER))?;
            Watch::start(series.watcher, program, NEAR, &roomy())
        })
    });
    let watch = watch.transpose()?;
    let (sent, took, lost) = far.run(|| {
        pin(Place::On(SENDER))?;
        let mut blaster = Blaster::new(FAR, ELSEWHERE, flows)?;
        let begin = now();
        let sent = blaster.send(u64::MAX, || begin.elapsed() >= options.turn())?;
        let took = begin.elapsed();
        Ok((sent, took, counts(FAR)?.send_drops))
    })?;
    // What the cable itself had no room for was seen by nobody.
    let sent = sent - lost;
    let told = watch.map(|watch| watch.end(sent)).transpose()?.unwrap_or_default();
    if series.watcher.is_ours() {
        let lost: u64 = told.lost.iter().map(|(_, count)| count).sum();
        let counted = told.counted;
        ensure!(counted + lost == sent, "{sent} sent, {counted} counted, {lost} told as lost: {}", told.said);
    }
    Ok(Turn { sent, took, told })
}

fn report(all: &[Series], flows: u32, options: &Options, out: &mut impl Write) -> Result<()> {
    let nobody = all.first().context("nobody is compared")?;
    writeln!(
        out,
        "\n### Throughput: {flows} flows, frames of 64 bytes for {} s, {} rounds\n",
        options.secs, options.rounds
    )?;
    writeln!(
        out,
        "| who watches | sent, k/s | ratio to nobody | ns a packet more | counted | lost | CPU s | peak MB | maps MB |"
    )?;
    writeln!(out, "|---|---:|---:|---:|---:|---|---:|---:|---:|")?;
    for series in all {
        let of = |value: fn(&Turn) -> f64| median(series.turns.iter().map(value));
        let pairs = || series.turns.iter().zip(&nobody.turns);
        let ratio = median(pairs().map(|(turn, nobody)| turn.rate() / nobody.rate()));
        let more_ns = median(pairs().map(|(turn, nobody)| 1e9 / turn.rate() - 1e9 / nobody.rate()));
        let (rate, cpu) = (of(|turn| turn.rate() / 1e3), of(|turn| turn.told.cpu.as_secs_f64()));
        write!(out, "| {} | {rate:.0} | {ratio:.2} |", series.watcher)?;
        if series.watcher == Watcher::Nobody {
            writeln!(out, " | | | | | |")?;
            continue;
        }
        let peak = of(|turn| turn.told.peak_bytes as f64 / 1e6);
        let maps = of(|turn| turn.told.maps_megabytes as f64);
        let (counted, lost) = (series.counted(), summed(series.turns.iter().flat_map(|turn| &turn.told.lost)));
        writeln!(out, " {more_ns:.0} | {counted} | {lost} | {cpu:.2} | {peak:.0} | {maps:.0} |")?;
    }
    Ok(())
}

impl Turn {
    /// Packets a second.
    fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }
}

impl Series {
    /// The share of all packets that were counted; "all" only where none was missed.
    fn counted(&self) -> String {
        let sum = |value: fn(&Turn) -> u64| self.turns.iter().map(value).sum::<u64>();
        let (sent, counted) = (sum(|turn| turn.sent), sum(|turn| turn.told.counted));
        if counted == sent {
            format!("all of {sent}")
        } else {
            format!("{:.3} %", 100.0 * counted as f64 / sent as f64)
        }
    }
}

/// Counts by reason, added up.
pub(crate) fn summed<'a>(counts: impl IntoIterator<Item = &'a (String, u64)>) -> String {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        *sums.entry(reason).or_default() += count;
    }
    let words: Vec<String> = sums.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if words.is_empty() { "0".to_owned() } else { words.join(", ") }
}

/// The value in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_unstable_by(f64::total_cmp);
    if all.is_empty() { f64::NAN } else { f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]) }
}

/// A configuration of flowtap's with room for every flow.
pub(crate) fn roomy() -> String {
    format!("[kernel]\nflow-map-max = {FLOW_MAP_MAX}\n")
}

/// More than the flows of any part: each generation of the kernel's maps holds them all.
pub(crate) const FLOW_MAP_MAX: u32 = 1_200_000;
