//! The command line: what was typed, and which command does it.

mod clock;
mod output;
mod progress;
mod replay;
mod summary;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// VPC Flow Logs for any Linux host, and for capture files.
#[derive(Debug, Parser)]
#[command(name = "flowtap", version, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // What a command is stands with its arguments: a comment here would hide what they say at length.
    Replay(Box<replay::ReplayArgs>),
}

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Replay(args) => match replay::run(*args) {
            Ok(done) => done.exit_code(),
            Err(error) => {
                complain(&format!("{error:#}"));
                ExitCode::from(USAGE)
            }
        },
    }
}

/// Tells the user what is wrong. Nothing can be done about a standard error that is closed.
fn complain(message: &str) {
    writeln!(std::io::stderr(), "flowtap: {message}").ok();
}

/// An input could not be read whole, or the output could not be written.
const INCOMPLETE: u8 = 1;

/// The command line, the configuration or the policy is wrong.
const USAGE: u8 = 2;
