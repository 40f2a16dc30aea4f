//! What two threads can gain on this machine at the most.

use std::time::Duration;

use crate::measure::now;

/// How much more two threads do than one in the same time, where nothing but the processor is needed. On two hardware
/// threads of one core this is far below two, and no program can gain more.
pub(crate) fn of_two_threads() -> f64 {
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

/// The least of several is taken: other work on the machine only slows.
const SPIN_ROUNDS: u32 = 5;
/// About a second.
const SPIN_STEPS: u64 = 1_000_000_000;
/// Odd, so that no step loses information.
const SPIN_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
