//! Waiting until no kernel program still works with what it read before.
//!
//! Authority: membarrier(2). Its oldest command waits for an RCU grace period of the kernel, and a BPF program at a
//! network hook runs inside one RCU section: when the call returns, every program that had read an old generation has
//! left.

use std::io;

/// Whether the kernel offers the barrier (one with `nohz_full` processors does not).
///
/// # Errors
/// The kernel knows no membarrier at all.
pub fn is_offered() -> io::Result<bool> {
    Ok(membarrier(libc::MEMBARRIER_CMD_QUERY)? & i64::from(libc::MEMBARRIER_CMD_GLOBAL) != 0)
}

/// Waits for all programs that run now; some milliseconds, seldom a hundred.
///
/// # Errors
/// The kernel does not offer the barrier.
pub fn wait() -> io::Result<()> {
    membarrier(libc::MEMBARRIER_CMD_GLOBAL).map(drop)
}

fn membarrier(command: libc::c_int) -> io::Result<i64> {
    let flags: libc::c_uint = 0;
    let cpu: libc::c_int = 0;
    // SAFETY: the call takes three integers and no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_barrier_returns_where_it_is_offered() {
        if is_offered().is_ok_and(|offered| offered) {
            wait().unwrap();
        } else {
            eprintln!("skipped: this kernel offers no membarrier");
        }
    }
}
