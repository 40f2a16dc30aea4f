//! The two clocks of a kernel plane, read together.
//!
//! Authority: clock_gettime(2). Only the program's own loops call this; everything below takes the reading as an
//! argument.

use crate::{
    capture::kernel::Reading,
    time::{NANOS_PER_SEC, Timestamp},
};
use std::io;

/// The monotonic clock and the wall clock at one moment. The monotonic clock is read before and after, and the middle
/// taken.
///
/// # Errors
/// The kernel refuses a clock, which it does only under a fence that forbids the call.
pub fn read() -> io::Result<Reading> {
    let before_ns = nanoseconds(libc::CLOCK_MONOTONIC)?;
    let wall = Timestamp(nanoseconds(libc::CLOCK_REALTIME)?);
    let after_ns = nanoseconds(libc::CLOCK_MONOTONIC)?;
    Ok(Reading { monotonic_ns: before_ns.midpoint(after_ns), wall })
}

/// What kernel programs stamp packets with: the monotonic clock as of the last tick, up to ten milliseconds ago.
///
/// # Errors
/// As for [`read`].
pub fn coarse_ns() -> io::Result<u64> {
    nanoseconds(libc::CLOCK_MONOTONIC_COARSE)
}

fn nanoseconds(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which `time` is, alive and ours for the call.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // Both clocks are past zero: one counts from boot, the other is set to the present.
    let (secs, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Ok(secs.saturating_mul(NANOS_PER_SEC).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_forward() {
        let first = read().unwrap();
        let second = read().unwrap();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        // 2020-01-01: whoever builds this lives later.
        assert!(second.wall.secs() > 1_577_836_800);
    }
}
