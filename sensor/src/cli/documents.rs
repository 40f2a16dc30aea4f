//! `flowtap completions` and `flowtap man`: what shells and man(1) know of the commands, made from their definitions.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print completions for a shell
///
/// For bash: flowtap completions bash > /usr/share/bash-completion/completions/flowtap
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell's
    shell: Shell,
}

/// Write the manual pages of all commands into a directory
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Made if need be; pages of the same name are replaced
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Prints completions.
///
/// # Errors
/// When standard output takes no more.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    io::stdout().write_all(&script).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes manual pages: flowtap(1), and one for each command.
///
/// # Errors
/// When they can't be written.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let directory = &args.directory;
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.with_context(|| directory.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

const NAME: &str = "flowtap";
