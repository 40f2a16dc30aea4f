//! flowtap: arguments in, exit code out.
//!
//! 0: done. 1: an input could not be read whole, or the output could not be written; what could be read is counted,
//! and what was published stays. 2: the command line, the configuration or the policy is wrong, and nothing was done.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
