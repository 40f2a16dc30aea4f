//! flowtap on a wire: what it costs who sends, what it counts, what it holds, what it takes when nothing happens.
//!
//! Everything happens in network namespaces of this program's own. Needs root and `ip`; says that it is skipped elsewhere.
//! `README.md` in the folder above has the method and the results. Called without `--bench`, as `cargo test` does, it
//! goes through every part for moments and holds the counts against each other.

mod blast;
mod drain;
mod idle;
mod machine;
#[path = "../measure.rs"]
mod measure;
mod mirror;
#[path = "../programs.rs"]
mod programs;
mod take;
mod throughput;
mod watchers;
mod wire;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use wire::Namespace;

/// Measure flowtap on virtual cables, beside other programs.
#[derive(Parser)]
#[command(name = "live")]
pub(crate) struct Options {
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// How often everything that is compared takes its turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long a turn is.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// How long nothing happens.
    #[arg(long, default_value_t = 60.0)]
    idle_secs: f64,
    /// Numbers of flows; each a power of two.
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 10, 1 << 20])]
    flows: Vec<u32>,
    /// How often the maps are emptied while two send.
    #[arg(long, default_value_t = 2000)]
    flips: u32,
    /// The flowtap to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_flowtap"))]
    flowtap: PathBuf,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Frames at full speed, and who watches them.
    Throughput,
    /// Maps full of flows, emptied; and emptied again and again.
    Drain,
    /// Nothing happens.
    Idle,
    /// Copies of everything, and who makes them.
    Mirror,
}

impl Part {
    const ALL: [Self; 4] = [Self::Throughput, Self::Drain, Self::Idle, Self::Mirror];
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    let mut out = io::stdout().lock();
    if let Err(error) = Namespace::new().and_then(|namespace| namespace.tool("ip link show")) {
        writeln!(out, "skipped: needs root and `ip` ({error:#})")?;
        return Ok(());
    }
    if !options.bench {
        options = Options { rounds: 1, secs: 0.3, idle_secs: 0.3, flows: vec![1 << 10], flips: 50, ..options };
    }
    for part in options.only.clone() {
        match part {
            Part::Throughput => throughput::run(&options, &mut out)?,
            Part::Drain => drain::run(&options, &mut out)?,
            Part::Idle => idle::run(&options, &mut out)?,
            Part::Mirror => mirror::run(&options, &mut out)?,
        }
    }
    Ok(())
}

impl Options {
    fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }
}
