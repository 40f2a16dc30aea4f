//! What the whole machine did: work that the kernel does for a packet belongs to no process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time that all processors together have been busy since the start, as proc(5) has it in `/proc/stat`.
///
/// # Errors
///
/// When the kernel does not tell.
pub(crate) fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no sum in /proc/stat")?;
    let ticks = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    // User, nice, system; then idle and waiting; then interrupts of both kinds; the rest is others' time.
    let of = |column: usize| ticks.get(column).copied().unwrap_or_default();
    let busy: u64 = [0, 1, 2, 5, 6].into_iter().map(of).sum();
    Ok(Duration::from_millis(busy * (1000 / TICKS_A_SECOND)))
}

/// `USER_HZ`, the same on every architecture that flowtap runs on.
const TICKS_A_SECOND: u64 = 100;
