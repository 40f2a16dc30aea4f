//! A target that takes nothing costs the flow log nothing.

use std::fmt;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::tap::{self, copies_of_run};
use super::{NEAR, OUT, Site};
use crate::Options;
use crate::blast::Blaster;
use crate::measure::now;
use crate::throughput::summed;
use crate::watchers::{Watch, Watcher};
use crate::wire::{ELSEWHERE, FAR, Place, SENDER, counts, pin};

/// What is behind the tapped host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Nothing is mirrored.
    Nobody,
    /// It takes everything.
    Ready,
    /// The way there lets a few packets a second through and keeps the rest waiting.
    Stalled,
}

/// Both planes with each target, at a rate that both can take.
///
/// # Errors
///
/// When a packet is missing from the flow log.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    writeln!(out, "\n### Mirroring: a stalled target, {RATE} frames of 64 bytes a second for {} s\n", options.secs)?;
    writeln!(out, "| plane | target | sent | counted | lost | copies sent | skipped | arrived |")?;
    writeln!(out, "|---|---|---:|---:|---|---:|---|---:|")?;
    for plane in ["ebpf", "pcap"] {
        let all = [Target::Stalled, Target::Nobody, Target::Ready];
        // A check sees enough in one.
        for target in all.into_iter().take(if options.bench { all.len() } else { 1 }) {
            turn(plane, target, options, out)?;
        }
    }
    Ok(())
}

fn turn(plane: &'static str, target: Target, options: &Options, out: &mut impl Write) -> Result<()> {
    let site = Site::new()?;
    if target == Target::Stalled {
        site.near.tool(&format!("tc qdisc add dev {OUT} root tbf rate 8kbit burst 2kb limit 16mb"))?;
    }
    let watch = site.near.run(|| {
        pin(Place::Beside(SENDER))?;
        match target {
            Target::Nobody => Watch::start(Watcher::Flowtap(plane), &options.flowtap, NEAR, ""),
            Target::Ready | Target::Stalled => tap::run(plane, &options.flowtap),
        }
    })?;
    let sent = site.far.run(|| {
        pin(Place::On(SENDER))?;
        let mut blaster = Blaster::new(FAR, ELSEWHERE, 1 << 10)?;
        let begin = now();
        let mut sent = 0;
        while begin.elapsed() < options.turn() {
            sent += blaster.send(STEP, || false)?;
            let due = Duration::from_secs_f64(sent as f64 / RATE as f64);
            sleep(due.saturating_sub(begin.elapsed()));
        }
        Ok(sent - counts(FAR)?.send_drops)
    })?;
    let told = watch.end(sent)?;
    let copies = if target == Target::Nobody { None } else { Some(copies_of_run(&told.said)?) };
    let lost: u64 = told.lost.iter().map(|(_, count)| count).sum();
    let counted = told.counted;
    ensure!((counted, lost) == (sent, 0), "{plane}, {target}: {sent} sent, {counted} counted, {lost} told as lost");
    let (copies, skipped) = match copies {
        Some(copies) => (copies.sent.to_string(), summed(&copies.skipped)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    writeln!(out, "| {plane} | {target} | {sent} | {counted} | {lost} | {copies} | {skipped} | {} |", site.arrived()?)?;
    Ok(())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Ready => "ready",
            Self::Stalled => "stalled",
        })
    }
}

/// Frames a second.
const RATE: u64 = 50_000;
/// Frames that are sent together.
const STEP: u64 = 500;
