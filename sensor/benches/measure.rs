//! What a program costs: user and system time and the peak of its memory, as the kernel accounts them at its end.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// One finished run of a program.
pub(crate) struct Run {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// User and system time, with those of the processes it waited for.
    pub(crate) cpu: Duration,
    /// From start to end by the clock.
    pub(crate) wall: Duration,
    /// The greatest resident set of it or of a process it waited for.
    pub(crate) peak_bytes: u64,
    /// Standard output, then standard error.
    pub(crate) said: String,
}

/// Runs `command` to its end. What it says goes through files in `scratch`, so that no pipe slows it.
///
/// The kernel counts the memory of the parent at the time of the fork as the child's, so the caller must stay small.
///
/// # Errors
///
/// When the program can't be started or its words not be kept.
pub(crate) fn run(command: &mut Command, scratch: &Path) -> io::Result<Run> {
    let [out, err] = ["stdout", "stderr"].map(|name| scratch.join(name));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let begin = now();
    let finished = command.spawn()?.wait4()?;
    let wall = begin.elapsed();
    let said = fs::read(out)?.into_iter().chain(fs::read(err)?).collect::<Vec<u8>>();
    Ok(Run {
        status: finished.status,
        cpu: finished.rusage.utime + finished.rusage.stime,
        wall,
        peak_bytes: finished.rusage.maxrss,
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

/// How much more two threads do than one in the same time, where nothing but the processor is needed. On two hardware
/// threads of one core this is far below two, and no program can gain more.
pub(crate) fn gain_of_two_threads() -> f64 {
    let (mut alone, mut together) = (Duration::MAX, Duration::MAX);
    for _ in 0..SPIN_ROUNDS {
        alone = alone.min(spin_on(1));
        together = together.min(spin_on(2));
    }
    2.0 * alone.as_secs_f64() / together.as_secs_f64()
}

/// Time until each of so many threads has done the same fixed work.
fn spin_on(threads: usize) -> Duration {
    let begin = now();
    std::thread::scope(|scope| {
        for seed in 0..threads {
            scope.spawn(move || {
                let steps = 0..SPIN_STEPS;
                std::hint::black_box(steps.fold(seed as u64, |state, step| (state ^ step).wrapping_mul(SPIN_FACTOR)))
            });
        }
    });
    begin.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The least of several is taken: other work on the machine only slows.
const SPIN_ROUNDS: u32 = 5;
/// About a second.
const SPIN_STEPS: u64 = 1_000_000_000;
/// Odd, so that no step loses information.
const SPIN_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
