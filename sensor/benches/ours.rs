//! How flowtap is measured, and what its summary must say.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::captures::Totals;

/// The command that replays `capture` as v2 text, the same rows as the `text` floor writes.
pub(crate) fn command(flowtap: &Path, capture: &Path, workers: u32) -> Command {
    let mut command = Command::new(flowtap);
    command.arg("replay").arg(capture).args(["-o", "/dev/null", "-f", "v2", "--summary", "json"]);
    command.args(["--account-id", "123456789012", "--interface-id", "eni-0123456789abcdef0"]);
    command.arg("--workers").arg(workers.to_string());
    command
}

/// Whether this program can be measured at all: it is there and knows the command.
pub(crate) fn is_able(flowtap: &Path) -> bool {
    let help = Command::new(flowtap).args(["replay", "--help"]).output();
    help.is_ok_and(|help| help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--summary"))
}

/// Compares the summary that flowtap printed with what was planned.
///
/// # Errors
///
/// When there is no summary, or it tells other numbers.
pub(crate) fn verify(said: &str, planned: &Totals) -> anyhow::Result<()> {
    let json = said.find('{').map(|begin| &said[begin..]).context("flowtap printed no summary")?;
    let summary: Value = serde_json::from_str(json).context("flowtap's summary is no JSON")?;
    for (pointer, expected) in [("/packets", planned.packets), ("/rows/written", planned.rows)] {
        let told = summary.pointer(pointer).and_then(Value::as_u64);
        ensure!(told == Some(expected), "flowtap's summary has {told:?} in {pointer}, not {expected}");
    }
    Ok(())
}
