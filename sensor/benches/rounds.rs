//! The order of things: prepare the captures, run every program in turns, verify each, report.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::captures::{self, Kind, Totals};
use crate::floor::Walker;
use crate::measure::{self, Run};
use crate::peers::Peer;
use crate::report::{self, Series};
use crate::{Options, gain, ours};

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// flowtap with so many workers.
    Ours { flowtap: PathBuf, workers: u32 },
    /// One of the floors.
    Floor(Walker),
    /// Another program.
    Peer { peer: Peer, installed: PathBuf },
}

/// Runs the whole benchmark and writes its report.
///
/// # Errors
///
/// When a capture can't be made or a floor sees other numbers than planned. Any other program that fails is left out
/// with a message.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.directory)?;
    let programs = programs(options)?;
    let mut series = Vec::new();
    for &kind in &options.captures {
        let capture = Capture::prepare(kind, options.packets, options)?;
        let of_peers = match options.peer_packets {
            Some(packets) if options.peers => Capture::prepare(kind, packets, options)?,
            _ => capture.clone(),
        };
        series.extend(programs.iter().cloned().map(|program| {
            let capture = if matches!(program, Program::Peer { .. }) { &of_peers } else { &capture };
            Series { program, capture: capture.clone(), runs: Vec::new() }
        }));
    }
    for round in 1..=options.rounds {
        for series in &mut series {
            let has_failed = round > 1 && series.runs.is_empty();
            if !has_failed && !is_slow(series) {
                measure_once(series, round)?;
            }
        }
    }
    series.retain(|series| !series.runs.is_empty());
    report::write(&series, options.packets, out)?;
    report::write_gain(&series, gain::of_two_threads(), out)
}

fn programs(options: &Options) -> io::Result<Vec<Program>> {
    let mut programs: Vec<Program> = Walker::ALL.map(Program::Floor).into();
    let flowtap = &options.flowtap;
    if ours::is_able(flowtap) {
        programs.extend([1, 2].map(|workers| Program::Ours { flowtap: flowtap.clone(), workers }));
    } else {
        writeln!(io::stderr(), "flowtap is left out: {} knows no `replay` with `--summary`", flowtap.display())?;
    }
    if options.peers {
        let installed = |peer: Peer| Some(Program::Peer { peer, installed: peer.find()? });
        programs.extend(Peer::ALL.into_iter().filter_map(installed));
    }
    Ok(programs)
}

/// A program that takes very long is run once.
fn is_slow(series: &Series) -> bool {
    series.runs.first().is_some_and(|run| run.cpu > SLOW_AFTER)
}

fn measure_once(series: &mut Series, round: u32) -> anyhow::Result<()> {
    let Series { program, capture, runs } = series;
    let mut terminal = io::stderr().lock();
    match program.run(capture) {
        Ok(run) => {
            writeln!(terminal, "round {round}: {} {program}: {:.2} s", capture.kind.name(), run.cpu.as_secs_f64())?;
            runs.push(run);
            Ok(())
        }
        Err(error) if matches!(program, Program::Floor(_)) => Err(error),
        Err(error) => {
            writeln!(terminal, "{} {program} is left out: {error:#}", capture.kind.name())?;
            runs.clear();
            Ok(())
        }
    }
}

impl Program {
    /// One run over `capture`, with its result verified.
    fn run(&self, capture: &Capture) -> anyhow::Result<Run> {
        let scratch = tempfile::tempdir()?;
        let mut command = match self {
            Self::Ours { flowtap, workers } => ours::command(flowtap, &capture.path, *workers),
            Self::Floor(walker) => part(&["floor", walker.name()], &[&capture.path, Path::new("/dev/null")])?,
            Self::Peer { peer, installed } => peer.command(installed, &capture.path, scratch.path())?,
        };
        let run = measure::run(&mut command, scratch.path()).with_context(|| format!("can't run {command:?}"))?;
        ensure!(run.status.success(), "ended with {}: {}", run.status, run.said.trim_end());
        match self {
            Self::Ours { .. } => ours::verify(&run.said, &capture.totals)?,
            Self::Floor(walker) => {
                let seen: Totals = serde_json::from_str(&run.said)?;
                let expected = walker.expected(&capture.totals);
                ensure!(seen == expected, "the floor {} saw {seen:?}, planned was {expected:?}", walker.name());
            }
            Self::Peer { peer, .. } => {
                let counted = peer.packets(&run.said, scratch.path())?.unwrap_or(capture.totals.packets);
                ensure!(counted == capture.totals.packets, "counted {counted} packets");
            }
        }
        Ok(run)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours { workers: 1, .. } => f.write_str("flowtap, 1 worker"),
            Self::Ours { workers, .. } => write!(f, "flowtap, {workers} workers"),
            Self::Floor(walker) => write!(f, "floor: {}", walker.name()),
            Self::Peer { peer, .. } => f.write_str(peer.name()),
        }
    }
}

/// A capture on disk.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    /// What it is made of.
    pub(crate) kind: Kind,
    /// What is in it.
    pub(crate) totals: Totals,
    path: PathBuf,
}

impl Capture {
    /// Writes it unless it is there, in a process of its own: planning takes memory, and the memory of this process
    /// counts as that of every program it starts.
    fn prepare(kind: Kind, packets: u64, options: &Options) -> anyhow::Result<Self> {
        let path = captures::path(&options.directory, kind, packets);
        let prepared = part(&["prepare", kind.name(), &packets.to_string()], &[&path])?.output()?;
        if !prepared.status.success() {
            bail!("can't write {}: {}", path.display(), String::from_utf8_lossy(&prepared.stderr));
        }
        Ok(Self { kind, totals: serde_json::from_slice(&prepared.stdout)?, path })
    }
}

/// This program again, for one part of the work.
fn part(words: &[&str], paths: &[&Path]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).args(paths);
    Ok(command)
}

const SLOW_AFTER: Duration = Duration::from_secs(10);
