//! What the workers are fed with, a block at a time, and the order in which windows close.
//!
//! A worker [`Feed::pull`]s a block and a plan: which frames belong to which window, and which windows closed
//! meanwhile. Windows are assigned here, in the order of the capture, so that the answer does not depend on who counts.
//! [`CaptureFeed`] is one capture that all workers read; [`LiveFeed`] a source for each worker, and a clock. Locks are
//! taken once a block.

mod live;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::capture::{Block, CaptureDrop, CaptureError, Fill, Loss, Source};
use crate::flow::interval::{Window, Windows};
use crate::ledger::FrameCounts;
use crate::time::Timestamp;
use crate::worker::Limits;

pub use live::{Clock, LiveFeed};

/// Feeds workers.
pub trait Feed: Sync {
    /// Fills `block` and `plan` for the worker of this number. Answers `End` when there will be nothing more for
    /// anyone; the plan may still hold windows to hand over.
    fn pull(&self, worker: usize, block: &mut Block, plan: &mut Vec<Step>) -> Fill;

    /// How packets are counted in windows of this generation.
    fn limits(&self, generation: u32) -> Limits;

    /// Learns what the worker of this number has done so far. Only a run that is watched while it lasts cares.
    fn report(&self, _worker: usize, _counts: &FrameCounts) {}
}

/// One thing for a worker to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Count these frames of the block in this window.
    Observe {
        /// Indexes into the block's frames.
        frames: Range<usize>,
        /// Where they belong.
        window: Window,
    },
    /// Add these counts of the block in this window.
    Add {
        /// Indexes into what the block has counted.
        counted: Range<usize>,
        /// Where they belong.
        window: Window,
    },
    /// The capture says that it lost packets.
    Lost {
        /// On which interface.
        interface: u16,
        /// How many.
        packets: u64,
        /// Where.
        loss: Loss,
        /// Where the loss is told.
        window: Window,
    },
    /// Nobody will put a packet into this window any more: hand it over.
    Close(Closing),
}

/// A window and its place in the order of closing, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Place in the order.
    pub order: u64,
    /// Which window.
    pub window: Window,
}

/// One capture and its windows, shared by the workers.
pub struct CaptureFeed {
    shared: Mutex<Shared>,
    limits: Limits,
}

struct Shared {
    source: Box<dyn Source>,
    planner: Planner,
    ended: bool,
    damage: Vec<CaptureError>,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl CaptureFeed {
    /// A feed of `source` for `workers` workers. `progress` is told the bytes of each block that was read.
    pub fn new(
        source: Box<dyn Source>,
        windows: Windows,
        workers: usize,
        limits: Limits,
        progress: Box<dyn FnMut(u64) + Send>,
    ) -> Self {
        let planner = Planner::new(windows, workers);
        let shared = Shared { source, planner, ended: false, damage: Vec::new(), progress };
        Self { shared: Mutex::new(shared), limits }
    }

    /// What was wrong with the capture, once all workers are done.
    pub fn into_damage(self) -> Vec<CaptureError> {
        self.shared.into_inner().unwrap_or_else(PoisonError::into_inner).damage
    }
}

impl Feed for CaptureFeed {
    fn pull(&self, worker: usize, block: &mut Block, plan: &mut Vec<Step>) -> Fill {
        plan.clear();
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).pull(worker, block, plan)
    }

    fn limits(&self, _generation: u32) -> Limits {
        self.limits
    }
}

impl Shared {
    fn pull(&mut self, worker: usize, block: &mut Block, plan: &mut Vec<Step>) -> Fill {
        self.planner.hear(worker, plan);
        let fill = self.fill(block);
        if fill == Fill::End {
            *block = Block::default();
            self.planner.close_all(worker, plan);
        } else {
            let end = block.frames.last().map_or(0, |frame| u64::from(frame.offset) + u64::from(frame.captured_bytes));
            (self.progress)(end);
            self.planner.assign(worker, block, plan);
        }
        fill
    }

    /// The next block. Damage is remembered and the rest of the capture goes on.
    fn fill(&mut self, block: &mut Block) -> Fill {
        while !self.ended {
            match self.source.fill(block) {
                Ok(Fill::End) => self.ended = true,
                Ok(fill) => return fill,
                Err(damage) => self.damage.push(damage),
            }
        }
        Fill::End
    }
}

/// Makes plans: knows the windows, and which worker has heard of which.
struct Planner {
    windows: Windows,
    /// Windows that closed and that a worker has not heard of yet, for each worker.
    unheard: Vec<Vec<Closing>>,
    closed_count: u64,
}

impl Planner {
    fn new(windows: Windows, workers: usize) -> Self {
        Self { windows, unheard: vec![Vec::new(); workers], closed_count: 0 }
    }

    /// Tells a worker which windows others have closed.
    fn hear(&mut self, worker: usize, plan: &mut Vec<Step>) {
        if let Some(unheard) = self.unheard.get_mut(worker) {
            plan.extend(unheard.drain(..).map(Step::Close));
        }
    }

    /// Gives each frame and each drop of the block its window.
    fn assign(&mut self, worker: usize, block: &Block, plan: &mut Vec<Step>) {
        let mut closed = Vec::new();
        let mut start = 0;
        while let Some(first) = block.frames.get(start) {
            let window = self.windows.admit(first.time, &mut closed);
            self.close(worker, &mut closed, plan);
            let rest = block.frames.get(start..).unwrap_or_default();
            // At least itself: a plan comes to its end.
            let same = rest.iter().take_while(|frame| self.windows.holds(&window, frame.time)).count().max(1);
            plan.push(Step::Observe { frames: start..start + same, window });
            start += same;
        }
        let mut start = 0;
        while let Some(first) = block.counted.get(start) {
            let window = self.windows.admit(first.first, &mut closed);
            self.close(worker, &mut closed, plan);
            let rest = block.counted.get(start..).unwrap_or_default();
            let same = rest.iter().take_while(|counted| self.windows.holds(&window, counted.first)).count().max(1);
            plan.push(Step::Add { counted: start..start + same, window });
            start += same;
        }
        for drop in &block.drops {
            let window = self.windows.for_loss(drop.time, &mut closed);
            self.close(worker, &mut closed, plan);
            let CaptureDrop { interface, packets, loss, .. } = *drop;
            plan.push(Step::Lost { interface, packets, loss, window });
        }
    }

    /// Closes what has been over for `grace_secs` at `now`.
    fn keep_time(&mut self, worker: usize, now: Timestamp, grace_secs: u64, plan: &mut Vec<Step>) {
        let mut closed = Vec::new();
        self.windows.keep_time(now, grace_secs, &mut closed);
        self.close(worker, &mut closed, plan);
    }

    fn close_all(&mut self, worker: usize, plan: &mut Vec<Step>) {
        let mut closed = Vec::new();
        self.windows.close_all(&mut closed);
        self.close(worker, &mut closed, plan);
    }

    /// Closes everything before its time: what is open lasted until `now`.
    fn cut_short(&mut self, worker: usize, now: Timestamp, plan: &mut Vec<Step>) {
        let mut closed = Vec::new();
        self.windows.close_all(&mut closed);
        for window in &mut closed {
            window.end_ns = window.end_ns.min(now.0).max(window.start_ns + 1);
        }
        self.close(worker, &mut closed, plan);
    }

    /// Tells the others that windows closed; `worker` has it in its plan.
    fn close(&mut self, worker: usize, closed: &mut Vec<Window>, plan: &mut Vec<Step>) {
        for window in closed.drain(..) {
            let closing = Closing { order: self.closed_count, window };
            self.closed_count += 1;
            plan.push(Step::Close(closing));
            for (other, unheard) in self.unheard.iter_mut().enumerate() {
                if other != worker {
                    unheard.push(closing);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Direction, Frame, LinkType};
    use crate::flow::FragmentRule;
    use crate::time::NANOS_PER_SEC;

    /// Hands out one block for each list of times in seconds; `None` is damage.
    struct Script(Vec<Option<Vec<u64>>>);

    impl Source for Script {
        fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
            *block = Block::default();
            if self.0.is_empty() {
                return Ok(Fill::End);
            }
            let Some(times) = self.0.remove(0) else {
                let cause = std::io::Error::other("damage");
                return Err(CaptureError::Io { input: "script".to_owned(), cause });
            };
            block.frames.extend(times.iter().map(|secs| Frame {
                time: Timestamp(secs * NANOS_PER_SEC),
                offset: 0,
                captured_bytes: 0,
                original_bytes: 0,
                interface: 0,
                link_type: LinkType::Raw,
                direction: Direction::Unknown,
            }));
            Ok(Fill::More)
        }
    }

    fn feed(blocks: Vec<Option<Vec<u64>>>, workers: usize) -> CaptureFeed {
        let limits = Limits { flows_max: 1, fragments: FragmentRule::Join, keep_detail: false, seed: 0 };
        CaptureFeed::new(Box::new(Script(blocks)), Windows::new(60), workers, limits, Box::new(|_| {}))
    }

    /// A plan in short: `3@60` are three frames for the window that starts at second 60, `!60` its close.
    fn brief(plan: &[Step]) -> Vec<String> {
        let secs = |window: &Window| window.start_ns / NANOS_PER_SEC;
        plan.iter()
            .map(|step| match step {
                Step::Observe { frames, window } => format!("{}@{}", frames.len(), secs(window)),
                Step::Add { counted, window } => format!("+{}@{}", counted.len(), secs(window)),
                Step::Lost { packets, window, .. } => format!("lost {packets}@{}", secs(window)),
                Step::Close(closing) => format!("!{}", secs(&closing.window)),
            })
            .collect()
    }

    #[test]
    fn runs_of_frames_go_to_their_windows_and_closes_come_between() {
        let feed = feed(vec![Some(vec![1, 2, 61, 3, 121, 181, 241, 4])], 1);
        let (mut block, mut plan) = (Block::default(), Vec::new());
        assert_eq!(feed.pull(0, &mut block, &mut plan), Fill::More);
        assert_eq!(brief(&plan), ["2@0", "1@60", "1@0", "1@120", "1@180", "!0", "1@240", "1@0"]);
        assert_eq!(feed.pull(0, &mut block, &mut plan), Fill::End);
        assert_eq!(brief(&plan), ["!0", "!60", "!120", "!180", "!240"]);
    }

    #[test]
    fn a_worker_hears_of_the_windows_that_others_closed_before_its_next_block() {
        let feed = feed(vec![Some(vec![1]), Some(vec![61, 121, 181, 241]), Some(vec![242])], 2);
        let (mut block, mut plan) = (Block::default(), Vec::new());
        feed.pull(0, &mut block, &mut plan);
        feed.pull(1, &mut block, &mut plan);
        assert_eq!(brief(&plan), ["1@60", "1@120", "1@180", "!0", "1@240"]);
        feed.pull(0, &mut block, &mut plan);
        assert_eq!(brief(&plan), ["!0", "1@240"]);
        feed.pull(0, &mut block, &mut plan);
        feed.pull(1, &mut block, &mut plan);
        assert_eq!(brief(&plan), ["!60", "!120", "!180", "!240"]);
    }

    #[test]
    fn damage_is_remembered_and_the_rest_is_read() {
        let feed = feed(vec![Some(vec![1]), None, Some(vec![2])], 1);
        let (mut block, mut plan) = (Block::default(), Vec::new());
        let mut frames = 0;
        while feed.pull(0, &mut block, &mut plan) == Fill::More {
            frames += block.frames.len();
        }
        assert_eq!(frames, 2);
        assert_eq!(feed.into_damage().len(), 1);
    }
}
