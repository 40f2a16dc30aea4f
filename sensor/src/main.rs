//! flowtap: arguments in, exit code out.
//!
//! 0: done. 1: an input could not be read whole, or the output could not be written; what could be read is counted,
//! and what was published stays. 2: the command line, the configuration or the policy is wrong. Nothing was written
//! then, unless the policy contradicts itself only on an interface that comes up later in a capture.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
