//! The replay benchmark: flowtap, the floors and other programs over the same captures, alternating, in one run.
//!
//! Processor time (user and system) is compared, never time by the clock, so that a busy machine disturbs little; the
//! ratio to the `text` floor is the figure to watch. `README.md` beside this file has the method and the results.
//!
//! Called without `--bench`, as `cargo test` does, it checks the captures and the floors against each other instead.

mod captures;
mod floor;
mod gain;
mod measure;
mod ours;
mod peers;
mod programs;
mod report;
mod rounds;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::{Parser, Subcommand};

use captures::{Kind, Totals};
use floor::Walker;

/// Compare flowtap's replay with floors and other programs.
#[derive(Parser)]
#[command(name = "replay")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
    /// Passed by `cargo bench`.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Packets of each capture.
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
    /// How often each program runs.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only these captures.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    captures: Vec<Kind>,
    /// Also the installed ones of tcpdump, softflowd, nfpcapd, argus and pmacctd; those over 10 s run once.
    #[arg(long)]
    peers: bool,
    /// Give the peers smaller captures of so many packets and scale what they took.
    #[arg(long)]
    peer_packets: Option<u64>,
    /// The flowtap to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_flowtap"))]
    flowtap: PathBuf,
    /// Where the captures are kept.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench"))]
    directory: PathBuf,
}

/// What the benchmark runs as programs of their own, so that they are measured like the others.
#[derive(Subcommand)]
enum Part {
    /// Write a capture unless it is there, and print its totals.
    Prepare { kind: Kind, packets: u64, capture: PathBuf },
    /// Send a floor over a capture and print what it saw.
    Floor { walker: Walker, capture: PathBuf, output: PathBuf },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    match arguments.part {
        Some(Part::Prepare { kind, packets, capture }) => {
            print(&captures::prepare(kind, packets, &capture)?, &mut out)?;
        }
        Some(Part::Floor { walker, capture, output }) => print(&floor::run(walker, &capture, &output)?, &mut out)?,
        None if arguments.bench => rounds::run(&arguments.options, &mut out)?,
        None => check(&mut out)?,
    }
    Ok(())
}

/// As one line of JSON, which the measuring process reads back.
fn print(totals: &Totals, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string(totals)?)?;
    Ok(())
}

/// Small captures through every floor: what they see is what was planned.
fn check(out: &mut impl Write) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for kind in Kind::ALL {
        let capture = captures::path(directory, kind, CHECK_PACKETS);
        let rows = capture.with_extension("txt");
        let planned = captures::prepare(kind, CHECK_PACKETS, &capture)?;
        for walker in Walker::ALL {
            let seen = floor::run(walker, &capture, &rows)?;
            ensure!(seen == walker.expected(&planned), "{walker:?} over {kind:?}: {seen:?}, planned was {planned:?}");
        }
        check_rows(&std::fs::read_to_string(&rows)?, &planned)?;
    }
    writeln!(out, "captures and floors agree")?;
    Ok(())
}

/// The written rows themselves add up to the plan.
fn check_rows(text: &str, planned: &Totals) -> anyhow::Result<()> {
    let mut sums = Totals { file_bytes: planned.file_bytes, ..Totals::default() };
    for row in text.lines() {
        let columns: Vec<&str> = row.split(' ').collect();
        ensure!(columns.len() == 14, "a v2 row has 14 fields: {row}");
        sums.rows += 1;
        sums.packets += columns[8].parse::<u64>()?;
        sums.ip_bytes += columns[9].parse::<u64>()?;
    }
    ensure!(sums == *planned, "rows of {sums:?}, planned was {planned:?}");
    Ok(())
}

const CHECK_PACKETS: u64 = 20_000;
