//! A feed of live sources: one for each worker, and a clock that closes intervals whether or not packets come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Feed, Planner, Step};
use crate::capture::{Block, Fill, Source};
use crate::flow::interval::{EPOCHS_MAX, GRACE_SECS, Windows};
use crate::ledger::FrameCounts;
use crate::time::Timestamp;
use crate::worker::Limits;

/// Tells the time: the binary's own clock, or a test's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Live sources and the windows they share.
pub struct LiveFeed {
    sources: Vec<Mutex<Box<dyn Source>>>,
    clock: Clock,
    shared: Mutex<Shared>,
    /// Is told when a source has ended.
    ended: Condvar,
    /// What each worker has reported.
    reports: Vec<Mutex<FrameCounts>>,
    /// How often each worker has come for a block.
    turns: Vec<AtomicU64>,
}

struct Shared {
    planner: Planner,
    /// Sources that have not ended.
    running: usize,
    /// Those of the newest generation.
    limits: (u32, Limits),
    /// Those of earlier ones, the newest last; at most [`EPOCHS_MAX`].
    limits_before: Vec<(u32, Limits)>,
}

impl LiveFeed {
    /// A feed with a worker for each of `sources`. A source that has nothing says [`Fill::Idle`] before long.
    pub fn new(sources: Vec<Box<dyn Source>>, windows: Windows, limits: Limits, clock: Clock) -> Self {
        let workers = sources.len();
        let newest = (windows.generation(), limits);
        Self {
            sources: sources.into_iter().map(Mutex::new).collect(),
            clock,
            shared: Mutex::new(Shared {
                planner: Planner::new(windows, workers),
                running: workers,
                limits: newest,
                limits_before: Vec::new(),
            }),
            ended: Condvar::new(),
            reports: (0..workers).map(|_| Mutex::default()).collect(),
            turns: (0..workers).map(|_| AtomicU64::default()).collect(),
        }
    }

    /// Changes how packets are counted from the end of this interval on, and says when that is; `None` while an
    /// earlier change is still to come. `prepare` is told the new generation, and from when on it is, before any worker
    /// can meet it.
    pub fn change(
        &self,
        interval_secs: u32,
        limits: Limits,
        prepare: impl FnOnce(u32, Timestamp),
    ) -> Option<Timestamp> {
        let now = (self.clock)();
        let mut shared = self.lock();
        let from = shared.planner.windows.change(now, interval_secs)?;
        let generation = shared.planner.windows.generation();
        let before = std::mem::replace(&mut shared.limits, (generation, limits));
        if shared.limits_before.len() >= EPOCHS_MAX {
            shared.limits_before.remove(0);
        }
        shared.limits_before.push(before);
        prepare(generation, from);
        Some(from)
    }

    /// Whether no earlier change is still to come.
    pub fn may_change(&self) -> bool {
        let now = (self.clock)();
        self.lock().planner.windows.may_change(now)
    }

    /// Lets workers end that wait for one that never will.
    pub fn abandon(&self) {
        self.lock().running = 0;
        self.ended.notify_all();
    }

    /// What the workers have done so far, each as of its last block.
    pub fn reported(&self) -> FrameCounts {
        let mut sum = FrameCounts::default();
        self.reports.iter().for_each(|report| sum.add(&lock(report)));
        sum
    }

    /// How often each worker has come for a block. One that stands still waits for a recorder that doesn't come on, or
    /// hangs.
    pub fn turns(&self) -> Vec<u64> {
        self.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Windows close only once no worker holds a frame without a plan, so those that end first wait for the last.
    fn wait_for_all<'a>(&self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        shared.running = shared.running.saturating_sub(1);
        self.ended.notify_all();
        self.ended.wait_while(shared, |shared| shared.running > 0).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for LiveFeed {
    fn pull(&self, worker: usize, block: &mut Block, plan: &mut Vec<Step>) -> Fill {
        plan.clear();
        if let Some(turns) = self.turns.get(worker) {
            turns.fetch_add(1, Ordering::Relaxed);
        }
        // A source that fails has nothing more; the live one says why in the log and goes on without its interface.
        let fill = match self.sources.get(worker) {
            Some(source) => lock(source).fill(block).unwrap_or(Fill::End),
            None => Fill::End,
        };
        let now = (self.clock)();
        let mut shared = self.lock();
        if fill == Fill::End {
            shared = self.wait_for_all(shared);
            *block = Block::default();
            shared.planner.hear(worker, plan);
            shared.planner.cut_short(worker, now, plan);
            return Fill::End;
        }
        shared.planner.hear(worker, plan);
        shared.planner.assign(worker, block, plan);
        match block.complete_until {
            Some(until) => shared.planner.keep_time(worker, until, 0, plan),
            None => shared.planner.keep_time(worker, now, GRACE_SECS, plan),
        }
        fill
    }

    fn limits(&self, generation: u32) -> Limits {
        let shared = self.lock();
        let mut newest_first = std::iter::once(&shared.limits).chain(shared.limits_before.iter().rev());
        let of_generation = newest_first.find(|(from, _)| *from <= generation);
        of_generation.or(shared.limits_before.first()).unwrap_or(&shared.limits).1
    }

    fn report(&self, worker: usize, counts: &FrameCounts) {
        if let Some(report) = self.reports.get(worker) {
            lock(report).clone_from(counts);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
