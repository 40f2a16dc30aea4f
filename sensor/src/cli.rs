//! The command line: what was typed, and which command does it.

mod check;
mod clock;
mod control;
mod mirror;
mod output;
mod progress;
mod record;
mod replay;
mod run;
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
    /// Watch interfaces and record what goes through them
    Run(Box<run::RunArgs>),
    /// Check a configuration file and print what it comes to
    Check(check::CheckArgs),
    /// Ask about traffic mirroring
    Mirror(mirror::MirrorArgs),
    /// Ask a run how it is going
    Status(control::StatusArgs),
    /// Tell a run to read its configuration again
    Reload(control::ReloadArgs),
}

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Replay(args) => replay::run(*args).map(|done| done.exit_code()),
        Command::Run(args) => run::run(*args),
        Command::Check(args) => check::run(&args),
        Command::Mirror(args) => mirror::run(&args),
        Command::Status(args) => control::status(&args),
        Command::Reload(args) => control::reload(&args),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(USAGE)
    })
}

/// Writes an answer to standard output. Nothing can be done if that is closed.
fn answer(text: &str) {
    writeln!(std::io::stdout(), "{}", text.trim_end()).ok();
}

/// Tells the user what is wrong. Nothing can be done about a standard error that is closed.
fn complain(message: &str) {
    writeln!(std::io::stderr(), "flowtap: {message}").ok();
}

/// An input could not be read whole, or the output could not be written.
const INCOMPLETE: u8 = 1;

/// The command line, the configuration or the policy is wrong.
const USAGE: u8 = 2;
