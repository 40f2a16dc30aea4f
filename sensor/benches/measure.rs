//! What a program costs: user and system time and the peak of its memory, as the kernel accounts them at its end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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

/// A program that runs; it is killed if nobody waits for its end.
pub(crate) struct Running {
    /// Nobody has waited for it yet.
    pub(crate) child: Option<Child>,
    begin: Instant,
    words: [PathBuf; 2],
}

/// Runs `command` to its end. What it says goes through files in `scratch`, so that no pipe slows it.
///
/// The kernel counts the memory of the parent at the time of the fork as the child's, so the caller must stay small.
///
/// # Errors
///
/// When the program can't be started or its words not be kept.
pub(crate) fn run(command: &mut Command, scratch: &Path) -> io::Result<Run> {
    Running::start(command, scratch)?.end()
}

impl Running {
    /// Starts `command`, as [`run`] does.
    ///
    /// # Errors
    ///
    /// When the program can't be started or its words not be kept.
    pub(crate) fn start(command: &mut Command, scratch: &Path) -> io::Result<Self> {
        let words = ["stdout", "stderr"].map(|name| scratch.join(name));
        let [out, err] = &words;
        command.stdin(Stdio::null()).stdout(File::create(out)?).stderr(File::create(err)?);
        let begin = now();
        Ok(Self { child: Some(command.spawn()?), begin, words })
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn end(mut self) -> io::Result<Run> {
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        let finished = child.wait4()?;
        Ok(Run {
            status: finished.status,
            cpu: finished.rusage.utime + finished.rusage.stime,
            wall: self.begin.elapsed(),
            peak_bytes: finished.rusage.maxrss,
            said: self.said()?,
        })
    }

    /// What it has said so far: standard output, then standard error.
    ///
    /// # Errors
    ///
    /// When its words were not kept.
    pub(crate) fn said(&self) -> io::Result<String> {
        let words: io::Result<Vec<Vec<u8>>> = self.words.iter().map(fs::read).collect();
        Ok(String::from_utf8_lossy(&words?.concat()).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The time by the clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures by the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
