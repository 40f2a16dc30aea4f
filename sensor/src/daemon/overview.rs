//! What a run knows of itself: gathered from all its threads, for whoever asks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::fence::Fence;
use super::latencies::Latencies;
use super::mirrors::Mirrors;
use super::plane::Told;
use super::status::Status;
use crate::capture::Roster;
use crate::feed::{Clock, LiveFeed};
use crate::ledger::{FrameCounts, RowCounts};
use crate::recorder::Milestone;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// Where the recorder posts how far it is.
#[derive(Debug, Clone)]
pub(super) struct Board {
    posted: Arc<Mutex<Posted>>,
    delivery_lag: Latencies,
}

#[derive(Debug, Clone, Default)]
struct Posted {
    until_secs: u64,
    rows: RowCounts,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { posted: Arc::default(), delivery_lag: Latencies::new() }
    }

    /// Takes note of an interval that was published just now.
    pub(super) fn post(&self, milestone: &Milestone<'_>, now: Timestamp) {
        let end_ns = milestone.until_secs.saturating_mul(NANOS_PER_SEC);
        self.delivery_lag.record(Duration::from_nanos(now.0.saturating_sub(end_ns)));
        let mut posted = self.lock();
        posted.until_secs = milestone.until_secs;
        posted.rows.clone_from(milestone.counts);
    }

    /// Unix seconds: every interval that ended by then is published; 0 before the first.
    pub(super) fn published_until_secs(&self) -> u64 {
        self.lock().until_secs
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that can be told of a run.
pub(super) struct Overview {
    pub(super) clock: Clock,
    pub(super) started: Timestamp,
    pub(super) feed: Arc<LiveFeed>,
    pub(super) roster: Roster,
    pub(super) board: Board,
    /// What is told of the plane.
    pub(super) told: Told,
    pub(super) fence: Fence,
    /// How long it took to take each interval's flows from where they are counted.
    pub(super) drain_time: Latencies,
    /// What mirrors.
    pub(super) mirrors: Mirrors,
    /// As of the last reload.
    pub(super) interval_secs: AtomicU32,
    pub(super) reloads: AtomicU64,
}

impl Overview {
    /// Takes note of a reload.
    pub(super) fn reloaded(&self, interval_secs: u32) {
        self.interval_secs.store(interval_secs, Ordering::Relaxed);
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is now.
    pub(super) fn status(&self) -> Status {
        let (posted, frames) = self.counts();
        Status {
            now: (self.clock)(),
            started: self.started,
            interval_secs: self.interval_secs.load(Ordering::Relaxed),
            published_until: posted.until_secs,
            reloads: self.reloads.load(Ordering::Relaxed),
            told: self.told.clone(),
            fence: self.fence,
            interfaces: self.roster.current(),
            frames,
            rows: posted.rows,
            mirror: self.mirrors.report(),
            delivery_lag: self.board.delivery_lag.quantiles(),
            drain_time: self.drain_time.quantiles(),
        }
    }

    /// What became of rows and frames. A worker reports when it is through with a block, which may be a moment after rows of
    /// that block are written: of windows that close in the midst of it, and of flows handed out early for want of room.
    fn counts(&self) -> (Posted, FrameCounts) {
        let posted = self.board.lock().clone();
        let written = posted.rows.packets + posted.rows.omitted.total();
        let mut frames = self.feed.reported();
        for _ in 0..REPORT_TRIES {
            if frames.packets >= written {
                break;
            }
            thread::sleep(REPORT_PAUSE);
            frames = self.feed.reported();
        }
        (posted, frames)
    }
}

/// How long a status waits for workers to report.
const REPORT_TRIES: u32 = 50;
const REPORT_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delivery_lag_is_from_the_end_of_an_interval_to_its_publication() {
        let board = Board::new();
        let counts = RowCounts { rows: 7, ..RowCounts::default() };
        let post = |until_secs, now_ns| {
            board.post(&Milestone { until_secs, files: Vec::new(), counts: &counts }, Timestamp(now_ns));
        };
        post(60, 61_250_000_000);
        post(120, 121_500_000_000);
        // An interval that a stop cut short; then a clock that was set back.
        post(180, 180_000_000_000);
        post(240, 200_000_000_000);
        let lag = board.delivery_lag.quantiles();
        assert_eq!((lag.count, lag.sum, lag.max), (4, Duration::from_millis(2750), Duration::from_millis(1500)));
        let posted = board.lock().clone();
        assert_eq!((posted.until_secs, posted.rows), (240, counts.clone()));
    }
}
