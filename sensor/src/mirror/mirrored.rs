//! A source whose frames are mirrored on their way: a replay mirrors so, in the order of the capture.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::executor::{Executor, Outlet};
use super::inner::Hints;
use crate::capture::{Block, CaptureError, Fill, Source};
use crate::feed::Clock;
use crate::time::Timestamp;

/// A source over another, which shows every frame to an executor before it hands it on. Workers are fed from one source
/// in turn, so copies leave in the order of the capture, for any number of them.
pub struct Mirrored<O> {
    source: Box<dyn Source>,
    /// Whoever made it asks it in the end what became of the frames.
    executor: Arc<Mutex<Executor<O>>>,
    pace: Option<Pace>,
}

impl<O: Outlet> Mirrored<O> {
    /// Mirrors the frames of `source`, at the pace given or as fast as they come.
    pub fn new(source: Box<dyn Source>, executor: Arc<Mutex<Executor<O>>>, pace: Option<Pace>) -> Self {
        Self { source, executor, pace }
    }
}

impl<O: Outlet> Source for Mirrored<O> {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        let fill = self.source.fill(block)?;
        // Nobody else uses it while frames come.
        let mut executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in &block.frames {
            if let Some(pace) = &mut self.pace {
                pace.wait_for(frame.time, || executor.flush());
            }
            executor.observe(frame, block.data(frame), Hints::Unknown);
        }
        executor.flush();
        Ok(fill)
    }
}

/// Lets a capture's own time pass, faster or not.
pub struct Pace {
    clock: Clock,
    /// How many seconds of the capture pass in one.
    speed: u32,
    /// When the first frame came, by the capture's clock and by ours.
    began: Option<(Timestamp, Timestamp)>,
}

impl Pace {
    /// As fast as the capture was, times `speed`.
    pub fn new(clock: Clock, speed: u32) -> Self {
        Self { clock, speed: speed.max(1), began: None }
    }

    /// Waits until it is time for a frame of this time, after `before_sleep`. A frame from before the first is not waited
    /// for.
    fn wait_for(&mut self, time: Timestamp, before_sleep: impl FnOnce()) {
        let now = (self.clock)();
        let wait = self.wait_of(time, now);
        if !wait.is_zero() {
            before_sleep();
            std::thread::sleep(wait);
        }
    }

    fn wait_of(&mut self, time: Timestamp, now: Timestamp) -> Duration {
        let (first, began) = *self.began.get_or_insert((time, now));
        let due_ns = time.0.saturating_sub(first.0) / u64::from(self.speed);
        let wait = Duration::from_nanos(due_ns.saturating_sub(now.0.saturating_sub(began.0)));
        // A sleep takes longer than it is told: what is due at once is not slept for.
        if wait < WAIT_MIN { Duration::ZERO } else { wait }
    }
}

/// The shortest wait that is worth one.
const WAIT_MIN: Duration = Duration::from_micros(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_as_in_the_capture_times_the_speed() {
        let millis = |millis: u64| Timestamp(1_000_000_000 + millis * 1_000_000);
        let mut pace = Pace::new(Arc::new(|| Timestamp(0)), 10);
        assert_eq!(pace.wait_of(Timestamp(50_000_000_000), millis(0)), Duration::ZERO, "the first begins");
        let wait = |pace: &mut Pace, capture_millis: u64, now| {
            pace.wait_of(Timestamp(50_000_000_000 + capture_millis * 1_000_000), now).as_millis()
        };
        assert_eq!(wait(&mut pace, 1000, millis(0)), 100);
        assert_eq!(wait(&mut pace, 1000, millis(60)), 40);
        assert_eq!(wait(&mut pace, 1000, millis(160)), 0, "it is late");
        assert_eq!(wait(&mut pace, 1, millis(0)), 0, "too short to sleep");
        assert_eq!(pace.wait_of(Timestamp(1), millis(0)), Duration::ZERO, "before the first");
    }
}
